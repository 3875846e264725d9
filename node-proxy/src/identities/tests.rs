//! Certificates and handshakes as Linkerd and Weir make them, and what must be refused.

use std::io::{Read as _, Write as _};

use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

use super::{certified::Request, *};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    anchor: Vec<u8>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let anchor = params.self_signed(&key).unwrap().der().to_vec();
        Authority { issuer: Issuer::new(params, key), anchor }
    }

    fn sign(&self, request: &Request) -> Vec<u8> {
        let params = CertificateSigningRequestParams::from_der(&request.der.as_slice().into()).unwrap();
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    fn certified(&self, identity: &Identity) -> Certified {
        let request = Request::new(identity).unwrap();
        let leaf = self.sign(&request);
        request.certified(identity, vec![leaf], std::slice::from_ref(&self.anchor)).unwrap()
    }
}

fn identity(account: &str) -> Identity {
    Identity::of("shop", account, "cluster.local").unwrap()
}

fn handshake(
    client: &Certified,
    server: &Certified,
    expected: &Identity,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(expected.as_str().to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(&client.client), name)?;
    let mut server = ServerConnection::new(Arc::clone(&server.server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut reader = wire.as_slice();
        while !reader.is_empty() {
            server.read_tls(&mut reader).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut reader = wire.as_slice();
        while !reader.is_empty() {
            client.read_tls(&mut reader).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

#[test]
fn both_sides_know_each_other_and_the_key_exchange_is_post_quantum() {
    let authority = Authority::new();
    let (web, api) = (authority.certified(&identity("web")), authority.certified(&identity("api")));
    let (mut client, mut server) = handshake(&web, &api, &identity("api")).unwrap();
    assert_eq!(Identities::peer_identity(server.peer_certificates().unwrap()), Some(identity("web")));
    assert_eq!(Identities::peer_identity(client.peer_certificates().unwrap()), Some(identity("api")));
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(client.alpn_protocol(), Some(weir_core::transport_header::ALPN));
    client.writer().write_all(b"hello").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    assert!(!wire.windows(5).any(|window| window == b"hello"));
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets().unwrap();
    let mut text = [0; 5];
    server.reader().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn another_server_than_the_expected_one_is_refused() {
    let authority = Authority::new();
    let (web, api) = (authority.certified(&identity("web")), authority.certified(&identity("api")));
    assert!(handshake(&web, &api, &identity("db")).is_err());
    let stranger = Authority::new().certified(&identity("api"));
    assert!(handshake(&web, &stranger, &identity("api")).is_err(), "of another mesh");
    assert!(handshake(&stranger, &api, &identity("api")).is_err(), "a client of another mesh");
}

#[test]
fn an_answer_that_does_not_fit_is_refused() {
    let authority = Authority::new();
    let anchors = vec![authority.anchor.clone()];
    let other = Request::new(&identity("web")).unwrap();
    let foreign = authority.sign(&other);
    let reasons = [
        Request::new(&identity("web")).unwrap().certified(&identity("web"), vec![foreign.clone()], &anchors),
        other.certified(&identity("api"), vec![foreign], &anchors),
        Request::new(&identity("web")).unwrap().certified(&identity("web"), vec![], &anchors),
        Request::new(&identity("web")).unwrap().certified(&identity("web"), vec![vec![1, 2, 3]], &anchors),
    ];
    for (result, wanted) in
        reasons.into_iter().zip(["another key", "names are not", "0 certificates", "not a certificate"])
    {
        let text = result.err().unwrap().to_string();
        assert!(text.contains(wanted), "{text}");
    }
    let request = Request::new(&identity("web")).unwrap();
    let leaf = authority.sign(&request);
    assert!(request.certified(&identity("web"), vec![leaf], &[Authority::new().anchor]).is_err(), "other anchors");
}

#[test]
fn names_in_certificates() {
    let with = |names: Vec<SanType>| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identities::peer_identity(&[certificate.der().clone()])
    };
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let web = identity("web");
    assert_eq!(with(vec![dns(web.as_str())]), Some(web.clone()));
    assert_eq!(with(vec![dns(web.as_str()), uri(&web.spiffe_uri())]), Some(web.clone()));
    assert_eq!(with(vec![dns(web.as_str()), uri(&identity("api").spiffe_uri())]), None);
    assert_eq!(with(vec![dns(web.as_str()), dns(identity("api").as_str())]), None);
    assert_eq!(with(vec![uri(&web.spiffe_uri())]), None);
    assert_eq!(with(vec![dns("web.shop\0.serviceaccount.identity.linkerd.cluster.local")]), None);
    assert_eq!(with(vec![]), None);
}

#[test]
fn renewal_is_due_after_seventy_percent_of_the_life() {
    let mut certified = Authority::new().certified(&identity("web"));
    (certified.not_before, certified.not_after) = (1_000, 2_000);
    assert_eq!(certified.renew_in(1_000, 0.5), 700);
    assert_eq!(certified.renew_in(1_000, 0.0), 650);
    assert_eq!(certified.renew_in(1_000, 1.0), 750);
    assert_eq!(certified.renew_in(1_900, 0.5), 0);
}

#[test]
fn a_kept_key_serves_again() {
    let authority = Authority::new();
    let record = authority.certified(&identity("web")).record(&identity("web"));
    let anchors = vec![authority.anchor.clone()];
    let (name, again) = Certified::from_record(&record, &anchors).unwrap();
    assert_eq!(name, identity("web"));
    assert!(handshake(&again, &authority.certified(&identity("api")), &identity("api")).is_ok());
    assert!(Certified::from_record(&record, &[Authority::new().anchor]).is_err());
}

#[test]
fn a_certificate_knows_its_issuer() {
    // An issuer that is an anchor, which nobody sends along.
    let (one, other) = (Authority::new(), Authority::new());
    let alone = one.certified(&identity("web"));
    assert!(alone.is_signed_by(&identity("web"), &one.anchor));
    assert!(!alone.is_signed_by(&identity("web"), &other.anchor), "the same name, another key");
    // One below the anchor, which is sent: one of the same key and name, made anew, is another one.
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let below = |serial: u64| {
        let mut numbered = params.clone();
        numbered.serial_number = Some(serial.into());
        numbered.signed_by(&key, &one.issuer).unwrap().der().to_vec()
    };
    let (first, second) = (below(1), below(2));
    let request = Request::new(&identity("web")).unwrap();
    let leaf = CertificateSigningRequestParams::from_der(&request.der.as_slice().into()).unwrap();
    let leaf = leaf.signed_by(&Issuer::new(params.clone(), &key)).unwrap().der().to_vec();
    let anchors = [one.anchor.clone()];
    let chained = request.certified(&identity("web"), vec![leaf, first.clone()], &anchors).unwrap();
    assert!(chained.is_signed_by(&identity("web"), &first));
    assert!(!chained.is_signed_by(&identity("web"), &second));
    assert!(!chained.is_signed_by(&identity("web"), &one.anchor));
}
