//! What a Service asks of its balancer. Must never be what is not understood: control says the default instead.

use std::{num::NonZeroU32, time::Duration};

use http::HeaderName;
use weir_api::v1::{self, hash_key};

use crate::limits;

/// How endpoints are chosen between, and how new ones begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which one of them.
    pub kind: Kind,
    /// For how long an endpoint that became ready gets less than the others; none: its full share at once.
    pub slow_start: Option<Duration>,
    /// Open requests of this node at an endpoint of its own zone from which on requests go to all; none: zones make no difference.
    pub zone_overflow: Option<NonZeroU32>,
}

/// Which one of the endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Of two random ones that with the lower peak EWMA of latency times open requests.
    #[default]
    PeakEwma,
    /// Of two random ones that with fewer open requests of this node.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// The one that the key belongs to.
    ConsistentHash(HashBy),
}

/// What the key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// The values of this header.
    Header(HeaderName),
    /// The value of this cookie.
    Cookie(Box<str>),
    /// The client pod's address.
    Source,
}

impl Settings {
    /// What control says.
    ///
    /// # Errors
    /// The field that cannot be used, and why.
    pub fn of_api(given: Option<&v1::Balancer>) -> Result<Settings, String> {
        let Some(given) = given else { return Ok(Settings::default()) };
        let kind = v1::BalancerKind::try_from(given.kind).map_err(|error| format!("balancer.kind: {error}"))?;
        let kind = match kind {
            v1::BalancerKind::Unspecified => return Err("balancer.kind: missing".to_owned()),
            v1::BalancerKind::PeakEwma => Kind::PeakEwma,
            v1::BalancerKind::LeastRequest => Kind::LeastRequest,
            v1::BalancerKind::RoundRobin => Kind::RoundRobin,
            v1::BalancerKind::Random => Kind::Random,
            v1::BalancerKind::ConsistentHash => Kind::ConsistentHash(HashBy::of_api(given.hash.as_ref())?),
        };
        let slow_start = Duration::from_millis(given.slow_start_ms).min(limits::SLOW_START_MOST);
        // A key belongs to its endpoint, wherever that is.
        let zone_overflow = NonZeroU32::new(given.zone_overflow).filter(|_| !matches!(kind, Kind::ConsistentHash(_)));
        Ok(Settings { kind, slow_start: Some(slow_start).filter(|window| !window.is_zero()), zone_overflow })
    }
}

impl HashBy {
    fn of_api(given: Option<&v1::HashKey>) -> Result<HashBy, String> {
        let key = given.and_then(|given| given.key.as_ref()).ok_or("balancer.hash: missing")?;
        match key {
            hash_key::Key::Header(name) => {
                let name = HeaderName::from_bytes(name.as_bytes());
                name.map(HashBy::Header).map_err(|error| format!("balancer.hash.header: {error}"))
            }
            hash_key::Key::Cookie(name) if name.is_empty() => Err("balancer.hash.cookie: empty".to_owned()),
            hash_key::Key::Cookie(name) => Ok(HashBy::Cookie(name.as_str().into())),
            hash_key::Key::Source(_) => Ok(HashBy::Source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_control_says_wrongly_is_refused_by_field() {
        let of = |kind: v1::BalancerKind, key: Option<hash_key::Key>, slow_start_ms| {
            let hash = key.map(|key| v1::HashKey { key: Some(key) });
            Settings::of_api(Some(&v1::Balancer { kind: kind.into(), hash, slow_start_ms, zone_overflow: 7 }))
        };
        use v1::BalancerKind::{ConsistentHash, RoundRobin, Unspecified};
        assert_eq!(Settings::of_api(None), Ok(Settings::default()));
        let slow = Settings {
            kind: Kind::RoundRobin,
            slow_start: Some(Duration::from_secs(30)),
            zone_overflow: NonZeroU32::new(7),
        };
        assert_eq!(of(RoundRobin, None, 30_000), Ok(slow));
        assert_eq!(of(RoundRobin, None, u64::MAX).unwrap().slow_start, Some(limits::SLOW_START_MOST));
        let source = Settings { kind: Kind::ConsistentHash(HashBy::Source), ..Settings::default() };
        assert_eq!(of(ConsistentHash, Some(hash_key::Key::Source(v1::ClientAddress {})), 0), Ok(source));
        for (wrong, field) in [
            (of(Unspecified, None, 0), "balancer.kind"),
            (of(ConsistentHash, None, 0), "balancer.hash"),
            (of(ConsistentHash, Some(hash_key::Key::Header("a b".into())), 0), "balancer.hash.header"),
            (of(ConsistentHash, Some(hash_key::Key::Cookie(String::new())), 0), "balancer.hash.cookie"),
        ] {
            assert!(wrong.as_ref().unwrap_err().starts_with(field), "{wrong:?}");
        }
    }
}
