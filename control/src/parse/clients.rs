//! Who and where clients are: identities, networks and label selectors of policy objects. Must never take one that could be read in two ways.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use weir_core::{
    identity::Identity,
    inbound::{Clients, Network},
};

use super::{FieldError, fields, quoted};
use crate::{
    limits,
    objects::authorization::{Labels, Operator, Requirement, Selector},
};

/// Labels of an object's metadata.
pub(super) fn labels(given: Option<&BTreeMap<String, String>>) -> Labels {
    let pairs = given.into_iter().flatten().map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())));
    pairs.collect()
}

/// A label selector; an empty one means all.
pub(super) fn selector(field: &str, given: &fields::LabelSelector) -> Result<Selector, FieldError> {
    let equal = given.match_labels.iter().flatten().map(|(key, value)| Requirement {
        key: Arc::from(key.as_str()),
        operator: Operator::In(vec![Arc::from(value.as_str())]),
    });
    let mut requirements: Vec<Requirement> = equal.collect();
    for (at, expression) in given.match_expressions.iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{at}]");
        let values: Vec<Arc<str>> = expression.values.iter().flatten().map(|value| Arc::from(value.as_str())).collect();
        let operator = match (expression.operator.as_str(), values.is_empty()) {
            ("In", false) => Operator::In(values),
            ("NotIn", false) => Operator::NotIn(values),
            ("Exists", true) => Operator::Exists,
            ("DoesNotExist", true) => Operator::DoesNotExist,
            ("In" | "NotIn", true) => return Err(FieldError::new(format!("{field}.values"), "missing")),
            ("Exists" | "DoesNotExist", false) => {
                let reason = format!("{} takes none", expression.operator);
                return Err(FieldError::new(format!("{field}.values"), reason));
            }
            (other, _) => {
                let reason = format!("{} is none of In, NotIn, Exists, DoesNotExist", quoted(other));
                return Err(FieldError::new(format!("{field}.operator"), reason));
            }
        };
        if expression.key.is_empty() {
            return Err(FieldError::new(format!("{field}.key"), "missing"));
        }
        requirements.push(Requirement { key: Arc::from(expression.key.as_str()), operator });
    }
    Ok(Selector(requirements))
}

/// Networks, each without its exceptions.
pub(super) fn networks(field: &str, given: &[fields::Cidr]) -> Result<Vec<Network>, FieldError> {
    if given.len() > limits::NETWORKS_PER_POLICY {
        let reason = format!("{} of them, at most {} are taken", given.len(), limits::NETWORKS_PER_POLICY);
        return Err(FieldError::new(field, reason));
    }
    given.iter().enumerate().map(|(at, given)| network(&format!("{field}[{at}]"), given)).collect()
}

fn network(field: &str, given: &fields::Cidr) -> Result<Network, FieldError> {
    let read = |field: String, text: &str| {
        cidr(text).ok_or_else(|| {
            FieldError::new(field, format!("{} is no network in CIDR form, as in 10.0.0.0/8", quoted(text)))
        })
    };
    let cidr = read(format!("{field}.cidr"), &given.cidr)?;
    let excepts = given.except.as_deref().unwrap_or_default();
    if excepts.len() > limits::NETWORKS_PER_POLICY {
        let reason = format!("{} of them, at most {} are taken", excepts.len(), limits::NETWORKS_PER_POLICY);
        return Err(FieldError::new(format!("{field}.except"), reason));
    }
    let mut except = Vec::with_capacity(excepts.len());
    for (at, text) in excepts.iter().enumerate() {
        let field = format!("{field}.except[{at}]");
        let part = read(field.clone(), text)?;
        if !cidr.contains(&part) || cidr == part {
            return Err(FieldError::new(field, format!("{part} is no part of {cidr}, or all of it")));
        }
        except.push(part);
    }
    Ok(Network { cidr, except })
}

/// An address alone is a network of one, as Linkerd takes it. Bits past the prefix mean nothing.
fn cidr(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
    Some(network.trunc())
}

/// Identities by pattern and of service accounts, gathered.
pub(super) struct Identities<'a> {
    trust_domain: &'a str,
    any: bool,
    exact: Vec<Arc<str>>,
    suffixes: Vec<Arc<str>>,
}

impl<'a> Identities<'a> {
    pub(super) fn new(trust_domain: &'a str) -> Identities<'a> {
        Identities { trust_domain, any: false, exact: Vec::new(), suffixes: Vec::new() }
    }

    /// `*`, `*.suffix`, a whole name, or a SPIFFE id of a service account.
    pub(super) fn pattern(&mut self, field: &str, text: &str) -> Result<(), FieldError> {
        self.bounded(field)?;
        if text == "*" {
            self.any = true;
            return Ok(());
        }
        if text.starts_with("spiffe://") {
            let Some(name) = of_spiffe(text) else {
                let reason = format!("{} is no SPIFFE id", quoted(text));
                return Err(FieldError::new(field, reason));
            };
            self.exact.push(name);
            return Ok(());
        }
        let (list, name) = match text.strip_prefix("*.") {
            Some(suffix) => (&mut self.suffixes, suffix),
            None => (&mut self.exact, text),
        };
        if !is_name(name) {
            let reason =
                format!("{} is no identity: *, a DNS name in lower case, *. before one, or a SPIFFE id", quoted(text));
            return Err(FieldError::new(field, reason));
        }
        list.push(Arc::from(name));
        Ok(())
    }

    /// That of a service account.
    pub(super) fn service_account(&mut self, field: &str, namespace: &str, name: &str) -> Result<(), FieldError> {
        self.bounded(field)?;
        let identity = Identity::of(namespace, name, self.trust_domain)
            .map_err(|error| FieldError::new(field, error.to_string()))?;
        self.exact.push(Arc::from(identity.as_str()));
        Ok(())
    }

    /// Those of all service accounts of a namespace.
    pub(super) fn namespace(&mut self, field: &str, namespace: &str) -> Result<(), FieldError> {
        self.bounded(field)?;
        // Any account: what it is called must not move the border between the parts.
        let identity = Identity::of(namespace, "x", self.trust_domain)
            .map_err(|error| FieldError::new(field, error.to_string()))?;
        self.suffixes.push(Arc::from(identity.as_str().trim_start_matches("x.")));
        Ok(())
    }

    fn bounded(&self, field: &str) -> Result<(), FieldError> {
        if self.exact.len() + self.suffixes.len() >= limits::IDENTITIES_PER_POLICY {
            let reason = format!("at most {} identities are taken", limits::IDENTITIES_PER_POLICY);
            return Err(FieldError::new(field, reason));
        }
        Ok(())
    }

    /// `None` where nobody is named.
    pub(super) fn clients(self) -> Option<Clients> {
        let Identities { any, exact, suffixes, .. } = self;
        match any {
            true => Some(Clients::Authenticated),
            false if exact.is_empty() && suffixes.is_empty() => None,
            false => Some(Clients::Identities { exact, suffixes }),
        }
    }
}

/// Certificates name workloads in lower case and without a trailing dot: what is written in another way would never match.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    name.len() <= weir_core::limits::IDENTITY_BYTES && name.split('.').all(is_label)
}

/// Of `spiffe://<trust domain>/ns/<namespace>/sa/<service account>` the same identity's DNS name; others as they are, for workloads
/// that are named so.
fn of_spiffe(text: &str) -> Option<Arc<str>> {
    let (trust_domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
    let is_path = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !is_name(trust_domain) || !path.split('/').all(is_path) || text.len() > limits::SPIFFE_BYTES {
        return None;
    }
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["ns", namespace, "sa", account] => {
            Identity::of(namespace, account, trust_domain).ok().map(|identity| Arc::from(identity.as_str()))
        }
        _other => Some(Arc::from(text)),
    }
}
