//! How the endpoints of a Service are chosen between: annotations of ours. Must never turn what is not understood into another choice than the
//! default.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderName;
use weir_api::v1::{self, BalancerKind, hash_key};
use weir_core::limits;

use super::{FieldError, annotations::Annotations, quoted, timeouts};
use crate::objects::annotation::balancer::{HASH, KIND, KINDS, SLOW_START, ZONE_OVERFLOW};

/// The balancer of a Service; none for the default.
pub(super) fn balancer(
    annotations: Option<&BTreeMap<String, String>>,
    errors: &mut Vec<FieldError>,
) -> Option<v1::Balancer> {
    let mut read = Annotations::new(annotations?, errors);
    let is_said = annotations?.contains_key(HASH);
    let given = read.read(KIND, kind);
    let hash = read.read(HASH, hash_key);
    let mut slow_start = read.read(SLOW_START, slow_start).unwrap_or_default();
    let mut zone_overflow = read.read(ZONE_OVERFLOW, zone_overflow).unwrap_or_default();
    let mut kind = given.unwrap_or(BalancerKind::PeakEwma);
    match kind {
        BalancerKind::ConsistentHash if hash.is_none() => {
            if !is_said {
                let reason =
                    format!("missing: consistent-hash has to be told what to hash, as in {HASH}: header:x-user");
                read.refuse(HASH, reason);
            }
            kind = BalancerKind::PeakEwma;
        }
        // A key belongs to its endpoint from the beginning.
        BalancerKind::ConsistentHash => {
            slow_start = Duration::ZERO;
            if zone_overflow > 0 {
                read.refuse(ZONE_OVERFLOW, "nothing is kept in a zone with consistent-hash".to_owned());
                zone_overflow = 0;
            }
        }
        // What the kind was to be is not known.
        _other if given.is_none() && annotations?.contains_key(KIND) => {}
        _other if hash.is_some() => read.refuse(HASH, format!("nothing is hashed without {KIND}: consistent-hash")),
        _other => {}
    }
    let is_default = kind == BalancerKind::PeakEwma && slow_start.is_zero() && zone_overflow == 0;
    (!is_default).then(|| v1::Balancer {
        kind: kind.into(),
        hash: hash.filter(|_| kind == BalancerKind::ConsistentHash),
        slow_start_ms: u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX),
        zone_overflow,
    })
}

fn kind(text: &str) -> Result<BalancerKind, String> {
    let known = KINDS.into_iter().find(|(name, _kind)| *name == text.trim());
    let names = || KINDS.map(|(name, _kind)| name).join(", ");
    known.map(|(_name, kind)| kind).ok_or_else(|| format!("{} is none of {}", quoted(text), names()))
}

fn hash_key(text: &str) -> Result<v1::HashKey, String> {
    let key = match text.trim().split_once(':') {
        None if text.trim() == "source" => hash_key::Key::Source(v1::ClientAddress {}),
        Some(("header", name)) => {
            let name = HeaderName::from_bytes(short(name)?.as_bytes());
            let name = name.map_err(|_error| format!("{} does not name a header", quoted(text)))?;
            hash_key::Key::Header(name.as_str().to_owned())
        }
        Some(("cookie", name)) => {
            // Names of cookies are tokens, as those of headers are, but case counts (RFC 6265 4.1.1).
            let name = short(name)?;
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_error| format!("{} does not name a cookie", quoted(text)))?;
            hash_key::Key::Cookie(name.to_owned())
        }
        _other => return Err(format!("{} is neither header:NAME nor cookie:NAME nor source", quoted(text))),
    };
    Ok(v1::HashKey { key: Some(key) })
}

/// A name that nodes can be told as often as rules name the Service.
fn short(name: &str) -> Result<&str, String> {
    let (name, most) = (name.trim(), limits::HASH_NAME_BYTES);
    if name.len() > most { Err(format!("a name of {} bytes; at most {most} are taken", name.len())) } else { Ok(name) }
}

fn zone_overflow(text: &str) -> Result<u32, String> {
    let most = limits::ZONE_OVERFLOW_MOST;
    let number = text.trim().parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{} is no number of open requests from 1 to {most}", quoted(text)))
}

fn slow_start(text: &str) -> Result<Duration, String> {
    let given = timeouts::linkerd(text)?;
    let most = limits::SLOW_START_MOST;
    let wrong = || format!("{} is longer than {} minutes", quoted(text), most.as_secs() / 60);
    Some(given).filter(|given| *given <= most).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, and the fields that are not.
    fn read(pairs: &[(&str, &str)]) -> (Option<v1::Balancer>, Vec<String>) {
        let map = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut errors = Vec::new();
        let balancer = balancer(Some(&map), &mut errors);
        (balancer, errors.into_iter().map(|error| error.field).collect())
    }

    fn of(kind: BalancerKind, key: Option<hash_key::Key>, slow_start_ms: u64) -> Option<v1::Balancer> {
        let hash = key.map(|key| v1::HashKey { key: Some(key) });
        Some(v1::Balancer { kind: kind.into(), hash, slow_start_ms, zone_overflow: 0 })
    }

    #[test]
    fn what_is_said() {
        use BalancerKind::{ConsistentHash, LeastRequest, PeakEwma, Random, RoundRobin};
        let header = || Some(hash_key::Key::Header("x-user".into()));
        let cookie = || Some(hash_key::Key::Cookie("Id".into()));
        let source = || Some(hash_key::Key::Source(v1::ClientAddress {}));
        for (pairs, expected) in [
            (&[][..], None),
            (&[(KIND, "peak-ewma")], None),
            (&[(KIND, "peak-ewma"), (SLOW_START, "0")], None),
            (&[(SLOW_START, "30s")], of(PeakEwma, None, 30_000)),
            (&[(KIND, "least-request")], of(LeastRequest, None, 0)),
            (&[(KIND, " round-robin "), (SLOW_START, "1h")], of(RoundRobin, None, 3_600_000)),
            (&[(KIND, "random")], of(Random, None, 0)),
            (&[(KIND, "consistent-hash"), (HASH, "header:X-User")], of(ConsistentHash, header(), 0)),
            (&[(KIND, "consistent-hash"), (HASH, "cookie: Id")], of(ConsistentHash, cookie(), 0)),
            (&[(KIND, "consistent-hash"), (HASH, "source"), (SLOW_START, "5s")], of(ConsistentHash, source(), 0)),
        ] {
            assert_eq!(read(pairs), (expected, Vec::new()), "{pairs:?}");
        }
        for kind in ["peak-ewma", "least-request", "round-robin", "random"] {
            let (read, wrong) = read(&[(KIND, kind), (ZONE_OVERFLOW, " 10 ")]);
            assert_eq!((read.map(|read| read.zone_overflow), wrong.len()), (Some(10), 0), "{kind}");
        }
        assert_eq!(read(&[(ZONE_OVERFLOW, "10000")]).0.unwrap().zone_overflow, 10_000, "without a kind too");
    }

    #[test]
    fn names_have_a_bound() {
        for kind in ["header", "cookie"] {
            let read = |bytes: usize| {
                let key = format!("{kind}:{}", "x".repeat(bytes));
                read(&[("weir.mesh/balancer", "consistent-hash"), ("weir.mesh/balancer-hash", &key)])
            };
            assert_eq!(read(limits::HASH_NAME_BYTES).1, Vec::<String>::new());
            assert_eq!(read(limits::HASH_NAME_BYTES + 1).1.len(), 1);
        }
    }

    #[test]
    fn what_is_not_understood_is_named_and_is_the_default() {
        for (pairs, wrong) in [
            (&[(KIND, "fastest")][..], KIND),
            (&[(KIND, "")], KIND),
            (&[(KIND, "Round-Robin"), (HASH, "source")], KIND),
            (&[(KIND, "consistent-hash")], HASH),
            (&[(KIND, "consistent-hash"), (HASH, "query:id")], HASH),
            (&[(KIND, "consistent-hash"), (HASH, "header:")], HASH),
            (&[(KIND, "consistent-hash"), (HASH, "header:a b")], HASH),
            (&[(KIND, "consistent-hash"), (HASH, "cookie:a;b")], HASH),
            (&[(KIND, "consistent-hash"), (HASH, "header")], HASH),
            (&[(HASH, "source")], HASH),
            (&[(SLOW_START, "soon")], SLOW_START),
            (&[(SLOW_START, "61m")], SLOW_START),
            (&[(ZONE_OVERFLOW, "0")], ZONE_OVERFLOW),
            (&[(ZONE_OVERFLOW, "10001")], ZONE_OVERFLOW),
            (&[(ZONE_OVERFLOW, "some")], ZONE_OVERFLOW),
        ] {
            assert_eq!(read(pairs), (None, vec![format!("metadata.annotations.{wrong}")]), "{pairs:?}");
        }
        let (hashed, wrong) = read(&[(KIND, "consistent-hash"), (HASH, "source"), (ZONE_OVERFLOW, "5")]);
        assert_eq!((hashed.unwrap().zone_overflow, wrong[0].ends_with(ZONE_OVERFLOW)), (0, true));
        let kept = of(BalancerKind::Random, None, 0);
        for pair in [(HASH, "source"), (SLOW_START, "2d")] {
            let expected = vec![format!("metadata.annotations.{}", pair.0)];
            assert_eq!(read(&[(KIND, "random"), pair]), (kept.clone(), expected), "one affects no other");
        }
    }
}
