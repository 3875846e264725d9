//! Names of workloads, as their certificates carry them. Must never accept a name that could be read as another one.

use std::{fmt, str::FromStr, sync::Arc};

use crate::limits;

/// `<service account>.<namespace>.serviceaccount.identity.linkerd.<trust domain>` (Linkerd's form of a DNS SAN).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    name: Arc<str>,
    account_end: u16,
    namespace_end: u16,
}

const MIDDLE: &str = ".serviceaccount.identity.linkerd.";

/// Why a name is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no workload identity: {reason}; expected <service account>.<namespace>{MIDDLE}<trust domain>")]
pub struct InvalidIdentity {
    name: String,
    reason: &'static str,
}

impl Identity {
    /// The identity of a service account.
    ///
    /// # Errors
    /// A part that is no DNS label (the trust domain: labels with dots), or a name over 253 bytes.
    pub fn of(namespace: &str, service_account: &str, trust_domain: &str) -> Result<Identity, InvalidIdentity> {
        let identity: Identity = format!("{service_account}.{namespace}{MIDDLE}{trust_domain}").parse()?;
        // A dot in a namespace would move the border between the parts.
        if (identity.service_account(), identity.namespace()) != (service_account, namespace) {
            return Err(InvalidIdentity {
                name: identity.as_str().to_owned(),
                reason: "the namespace is no DNS label",
            });
        }
        Ok(identity)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.name[..usize::from(self.account_end)]
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.name[usize::from(self.account_end) + 1..usize::from(self.namespace_end)]
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.name[usize::from(self.namespace_end) + MIDDLE.len()..]
    }

    /// The same as a SPIFFE id, for the URI SAN.
    pub fn spiffe_uri(&self) -> String {
        format!("spiffe://{}/ns/{}/sa/{}", self.trust_domain(), self.namespace(), self.service_account())
    }
}

/// RFC 1123 label: what Kubernetes allows for namespaces; service accounts may contain dots.
fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(name: &str) -> Result<Identity, InvalidIdentity> {
        let invalid = |reason| InvalidIdentity { name: name.chars().take(limits::IDENTITY_BYTES).collect(), reason };
        if name.len() > limits::IDENTITY_BYTES {
            return Err(invalid("longer than a DNS name"));
        }
        let (account, trust_domain) = name.split_once(MIDDLE).ok_or_else(|| invalid("the middle part is missing"))?;
        // Read from its other end such a name would be somebody else's.
        if trust_domain.contains(MIDDLE) || trust_domain.starts_with(MIDDLE.trim_start_matches('.')) {
            return Err(invalid("the middle part is there twice"));
        }
        let (service_account, namespace) =
            account.rsplit_once('.').ok_or_else(|| invalid("the namespace is missing"))?;
        if !service_account.split('.').all(is_label) {
            return Err(invalid("the service account is no DNS name"));
        }
        if !is_label(namespace) {
            return Err(invalid("the namespace is no DNS label"));
        }
        if !trust_domain.split('.').all(is_label) {
            return Err(invalid("the trust domain is no DNS name"));
        }
        let length = |text: &str| u16::try_from(text.len()).map_err(|_too_long| invalid("longer than a DNS name"));
        Ok(Identity { account_end: length(service_account)?, namespace_end: length(account)?, name: Arc::from(name) })
    }
}

impl TryFrom<&str> for Identity {
    type Error = InvalidIdentity;

    fn try_from(name: &str) -> Result<Identity, InvalidIdentity> {
        name.parse()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let identity = Identity::of("shop", "web.v1", "cluster.local").unwrap();
        assert_eq!(identity.as_str(), "web.v1.shop.serviceaccount.identity.linkerd.cluster.local");
        assert_eq!((identity.service_account(), identity.namespace()), ("web.v1", "shop"));
        assert_eq!(identity.trust_domain(), "cluster.local");
        assert_eq!(identity.spiffe_uri(), "spiffe://cluster.local/ns/shop/sa/web.v1");
    }

    #[test]
    fn no_part_can_smuggle_another_one_in() {
        let nested = "web.shop.serviceaccount.identity.linkerd.evil";
        assert!(Identity::of("x", nested, "cluster.local").is_err(), "would read as namespace shop");
        assert!(Identity::of("a.b", "web", "cluster.local").is_err(), "would read as namespace b");
        let overlapping = "web.shop.serviceaccount.identity.linkerd.serviceaccount.identity.linkerd.cluster.local";
        assert!(overlapping.parse::<Identity>().is_err());
    }

    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        for name in [
            "",
            "web",
            "web.shop.serviceaccount.identity.linkerd.",
            ".shop.serviceaccount.identity.linkerd.cluster.local",
            "web..serviceaccount.identity.linkerd.cluster.local",
            "Web.shop.serviceaccount.identity.linkerd.cluster.local",
            "web.shop\0.serviceaccount.identity.linkerd.cluster.local",
            "*.shop.serviceaccount.identity.linkerd.cluster.local",
            "web.shop.serviceaccount.identity.other.cluster.local",
        ] {
            assert!(name.parse::<Identity>().is_err(), "{name:?}");
        }
    }
}
