use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::{CertificateParams, KeyPair};

use super::*;

const SELF_MADE: CaArgs =
    CaArgs { trust_anchors: None, issuer_certificate: None, issuer_key: None, certificate_hours: 24 };

fn web() -> Identity {
    Identity::of("demo", "web", "cluster.local").unwrap()
}

fn request(names: &[&str]) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap().serialize_request(&key).unwrap().der().to_vec()
}

#[test]
fn what_it_made_is_private_and_survives() {
    let state = tempfile::tempdir().unwrap();
    let first = Authority::open(&SELF_MADE, state.path(), "cluster.local").unwrap().current();
    for name in ["ca.key", "issuer.key"] {
        assert_eq!(fs::metadata(state.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    let second = Authority::open(&SELF_MADE, state.path(), "cluster.local").unwrap().current();
    assert_eq!(first.anchors, second.anchors);
    assert!(first.given == second.given);
}

#[test]
fn signs_the_name_that_was_decided_on_and_no_other() {
    let state = tempfile::tempdir().unwrap();
    let authority = Authority::open(&SELF_MADE, state.path(), "cluster.local").unwrap();
    let issued = authority.certify(&web(), &request(&[web().as_str()])).unwrap();
    assert_eq!(issued.chain.len(), 2);
    for names in
        [&["other.demo.serviceaccount.identity.linkerd.cluster.local"][..], &[], &[web().as_str(), "example.com"]]
    {
        let error = authority.certify(&web(), &request(names)).unwrap_err();
        assert!(matches!(error, CaError::Request(_)), "{names:?}: {error}");
    }
    assert!(matches!(authority.certify(&web(), b"not DER").unwrap_err(), CaError::Request(_)));
    let mut forged = request(&[web().as_str()]);
    *forged.last_mut().unwrap() ^= 1;
    assert!(authority.certify(&web(), &forged).is_err(), "a request whose signature is wrong");
}

#[test]
fn a_new_bundle_is_taken_and_a_bad_one_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let authority = Authority::open(&SELF_MADE, state.path(), "cluster.local").unwrap();
    let new = Authority::open(&SELF_MADE, other.path(), "cluster.local").unwrap();
    assert!(!authority.reload().unwrap());
    let path = state.path().join("ca.crt");
    let both = [fs::read(&path).unwrap(), fs::read(other.path().join("ca.crt")).unwrap()].concat();
    fs::write(&path, &both).unwrap();
    assert!(authority.reload().unwrap());
    assert_eq!(authority.current().anchors.len(), 2);
    // An anchor that does not fit the issuer would cut off every workload.
    fs::copy(other.path().join("ca.crt"), &path).unwrap();
    let error = authority.reload().unwrap_err().to_string();
    assert!(error.contains("does not verify"), "{error}");
    assert_eq!(authority.current().anchors.len(), 2);
    drop(new);
}
