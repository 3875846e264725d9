//! Labels and annotations that opt in and configure. Must never guess: of a value that is not understood the strictest reading is in
//! force, whatever was in force before, so that all replicas of control agree, those that have just started too.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use weir_api::v1;
use weir_core::inbound::DefaultPolicy;

use super::{FieldError, quoted};
use crate::objects::{PortSpec, Settings, annotation::OPAQUE_PORTS};

const ENABLED: &str = "weir.mesh/enabled";
const LINKERD_INJECT: &str = "linkerd.io/inject";
const SKIP_INBOUND: &str = "config.linkerd.io/skip-inbound-ports";
const SKIP_OUTBOUND: &str = "config.linkerd.io/skip-outbound-ports";
const SKIP_SUBNETS: &str = "config.linkerd.io/skip-subnets";
const ACCESS_LOG: &str = "config.linkerd.io/access-log";
const DEFAULT_POLICY: &str = "config.linkerd.io/default-inbound-policy";
const FAIL_MODE: &str = "weir.mesh/fail-mode";

type Map = BTreeMap<String, String>;

/// `weir.mesh/enabled` (a label), else with `linkerd_inject` the annotation `linkerd.io/inject`.
pub(super) fn enabled(
    labels: Option<&Map>,
    annotations: Option<&Map>,
    linkerd_inject: bool,
    errors: &mut Vec<FieldError>,
) -> Option<bool> {
    let value = |map: Option<&'_ Map>, key: &str| map.and_then(|map| map.get(key)).cloned();
    if let Some(value) = value(labels, ENABLED) {
        return match value.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let reason = format!("{} is neither \"true\" nor \"false\"", quoted(other));
                errors.push(meshed(format!("metadata.labels.{ENABLED}"), &reason));
                Some(true)
            }
        };
    }
    match value(annotations, LINKERD_INJECT).filter(|_| linkerd_inject)?.as_str() {
        "enabled" | "ingress" => Some(true),
        "disabled" => Some(false),
        other => {
            let reason = format!("{} is none of enabled, disabled, ingress", quoted(other));
            errors.push(meshed(format!("metadata.annotations.{LINKERD_INJECT}"), &reason));
            Some(true)
        }
    }
}

/// Plaintext could not be undone.
fn meshed(field: String, reason: &str) -> FieldError {
    meanwhile(field, reason, "it counts as opted in")
}

/// What is in force in the place of what is not understood.
pub(super) fn meanwhile(field: String, reason: &str, what: &str) -> FieldError {
    FieldError::new(field, format!("{reason}; until it is corrected, {what}"))
}

/// All annotations.
pub(super) fn settings(annotations: Option<&Map>, errors: &mut Vec<FieldError>) -> Settings {
    let Some(annotations) = annotations else { return Settings::default() };
    let mut fields = Fields { annotations, errors };
    let exclusions = weir_core::limits::EXCLUSIONS;
    // How a port's bytes are read, or noted down, opens nothing: there the namespace's word, or the default, is as good.
    let unsaid = "it is as good as not there";
    let nothing = "nothing is skipped by it";
    Settings {
        opaque_ports: fields.read(OPAQUE_PORTS, |text| ports(text, weir_core::limits::PORT_RANGES), None, unsaid),
        skip_inbound_ports: fields.read(SKIP_INBOUND, |text| ports(text, exclusions), Some(Vec::new()), nothing),
        skip_outbound_ports: fields.read(SKIP_OUTBOUND, |text| ports(text, exclusions), Some(Vec::new()), nothing),
        skip_subnets: fields.read(SKIP_SUBNETS, |text| subnets(text, exclusions), Some(Vec::new()), nothing),
        access_log: fields.read(ACCESS_LOG, access_log, None, unsaid),
        permissive: fields.read(FAIL_MODE, permissive, Some(false), "it counts as enforce"),
        default_policy: fields.read(DEFAULT_POLICY, default_policy, Some(DefaultPolicy::Deny), "it counts as deny"),
    }
}

struct Fields<'a> {
    annotations: &'a Map,
    errors: &'a mut Vec<FieldError>,
}

impl Fields<'_> {
    /// `strictest`: what a value that is not understood counts as, `what` in words.
    fn read<T>(
        &mut self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        strictest: Option<T>,
        what: &str,
    ) -> Option<T> {
        match parse(self.annotations.get(key)?) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.errors.push(meanwhile(format!("metadata.annotations.{key}"), &reason, what));
                strictest
            }
        }
    }
}

fn items(text: &str, most: usize) -> Result<Vec<&str>, String> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.len() > most {
        return Err(format!("{} items, at most {most} are allowed: use ranges", items.len()));
    }
    Ok(items)
}

/// A list of ports, ranges and names of ports.
pub(super) fn ports(text: &str, most: usize) -> Result<Vec<PortSpec>, String> {
    items(text, most)?.into_iter().map(port_spec).collect()
}

fn port_spec(item: &str) -> Result<PortSpec, String> {
    let wrong = || format!("{} is no port (1 to 65535), range (8000-8010) or port name", quoted(item));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    if item.starts_with(|first: char| first.is_ascii_digit()) && item.bytes().all(|byte| !byte.is_ascii_alphabetic()) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        return match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(PortSpec::Range(first, last)),
            _ => Err(wrong()),
        };
    }
    // RFC 6335 service names, as Kubernetes demands of port names.
    let is_name = item.len() <= 63
        && item.bytes().any(|byte| byte.is_ascii_alphabetic())
        && item.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !item.starts_with('-')
        && !item.ends_with('-');
    if is_name { Ok(PortSpec::Named(Arc::from(item))) } else { Err(wrong()) }
}

fn subnets(text: &str, most: usize) -> Result<Vec<IpNet>, String> {
    let subnet = |item: &str| {
        let address = item.parse::<std::net::IpAddr>().map(IpNet::from);
        item.parse::<IpNet>().or(address).map_err(|error: std::net::AddrParseError| {
            format!("{} is no subnet in CIDR form, as in 10.0.0.0/8: {error}", quoted(item))
        })
    };
    items(text, most)?.into_iter().map(subnet).collect()
}

fn access_log(text: &str) -> Result<v1::AccessLog, String> {
    match text {
        "apache" => Ok(v1::AccessLog::Apache),
        "json" => Ok(v1::AccessLog::Json),
        "" | "none" => Ok(v1::AccessLog::Off),
        other => Err(format!("{} is none of apache, json, none", quoted(other))),
    }
}

fn default_policy(text: &str) -> Result<DefaultPolicy, String> {
    text.parse().map_err(|unknown| format!("{} is {unknown}", quoted(text)))
}

fn permissive(text: &str) -> Result<bool, String> {
    match text {
        "permissive" => Ok(true),
        "enforce" => Ok(false),
        other => Err(format!("{} is neither enforce nor permissive", quoted(other))),
    }
}
