//! What a certificate says, for people. It shows, it does not verify; must never panic on bytes that are no certificate.

use serde::Serialize;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
    public_key::PublicKey,
};

use crate::duration;

/// One certificate; field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Certificate {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    pub(crate) serial: String,
    /// `DNS:name`, `URI:uri`, `IP:address`.
    pub(crate) sans: Vec<String>,
    /// RFC 3339, UTC.
    pub(crate) not_before: String,
    /// RFC 3339, UTC.
    pub(crate) not_after: String,
    pub(crate) key: String,
    #[serde(skip)]
    pub(crate) not_before_unix: i64,
    #[serde(skip)]
    pub(crate) not_after_unix: i64,
}

impl Certificate {
    /// Reads DER.
    pub(crate) fn parse(der: &[u8]) -> Result<Certificate, String> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("not a certificate: {} bytes after its end", rest.len()));
        }
        let names = certificate.subject_alternative_name().ok().flatten();
        let sans = names.map(|names| names.value.general_names.iter().map(san).collect()).unwrap_or_default();
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Certificate {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: certificate.raw_serial_as_string(),
            sans,
            not_before: duration::rfc3339(not_before),
            not_after: duration::rfc3339(not_after),
            key: key(&certificate),
            not_before_unix: not_before,
            not_after_unix: not_after,
        })
    }

    /// `in 23h59m`, `expired 3m2s ago`, or that it is not valid yet.
    pub(crate) fn remaining(&self, now: i64) -> String {
        if now < self.not_before_unix {
            return format!("not valid for {}: check the clocks", duration::rough(self.not_before_unix.abs_diff(now)));
        }
        let rough = duration::rough(self.not_after_unix.abs_diff(now));
        if now < self.not_after_unix { format!("in {rough}") } else { format!("expired {rough} ago") }
    }

    /// Whether the time is right.
    pub(crate) fn is_current(&self, now: i64) -> bool {
        (self.not_before_unix..self.not_after_unix).contains(&now)
    }
}

fn san(name: &GeneralName<'_>) -> String {
    let ip = |bytes: &[u8]| {
        let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
        four.or_else(|_longer| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from))
    };
    match name {
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::IPAddress(bytes) => ip(bytes).map_or_else(|_odd| name.to_string(), |ip| format!("IP:{ip}")),
        other => other.to_string(),
    }
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("EC {} bits", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA {} bits", key.key_size()),
        _ => certificate.public_key().algorithm.algorithm.to_id_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn der() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["web.shop.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "web");
        params.subject_alt_names.push(SanType::URI("spiffe://x/ns/shop/sa/web".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 1, 2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn says_what_is_in_it() {
        let certificate = Certificate::parse(&der()).unwrap();
        assert!(certificate.subject.contains("CN=web"), "{}", certificate.subject);
        assert_eq!(certificate.sans, ["DNS:web.shop.example", "URI:spiffe://x/ns/shop/sa/web", "IP:10.0.0.1"]);
        assert_eq!(certificate.not_before, "2026-01-01T00:00:00Z");
        assert_eq!(certificate.not_after, "2026-01-02T00:00:00Z");
        assert_eq!(certificate.key, "EC 256 bits");
    }

    #[test]
    fn time_left() {
        let certificate = Certificate::parse(&der()).unwrap();
        let (begin, end) = (certificate.not_before_unix, certificate.not_after_unix);
        assert_eq!(certificate.remaining(end - 60), "in 1m0s");
        assert_eq!(certificate.remaining(end + 5), "expired 5s ago");
        assert!(certificate.remaining(begin - 1).starts_with("not valid for 1s"));
        assert!(certificate.is_current(begin) && !certificate.is_current(end) && !certificate.is_current(begin - 1));
    }

    #[test]
    fn other_bytes_are_an_error() {
        let der = der();
        assert!(Certificate::parse(&[]).is_err());
        assert!(Certificate::parse(&[&der[..], b"x"].concat()).is_err());
        for cut in 0..der.len() {
            assert!(Certificate::parse(&der[..cut]).is_err());
        }
    }
}
