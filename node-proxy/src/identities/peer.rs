//! Reads the identity out of a certificate. Must never accept a name that is there twice or in two meanings.

use rustls_pki_types::CertificateDer;
use weir_core::identity::Identity;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Exactly one DNS SAN that is an identity; at most one URI SAN, of the same workload; nothing else.
pub(super) fn identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_rest, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let (mut dns, mut uri) = (None, None);
    for name in &names.value.general_names {
        let slot = match name {
            GeneralName::DNSName(name) => (&mut dns, *name),
            GeneralName::URI(name) => (&mut uri, *name),
            _ => return None,
        };
        if slot.0.replace(slot.1).is_some() {
            return None;
        }
    }
    let identity: Identity = dns?.parse().ok()?;
    uri.is_none_or(|uri| uri == identity.spiffe_uri()).then_some(identity)
}
