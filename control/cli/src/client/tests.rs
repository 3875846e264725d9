use std::io::Write as _;

use super::*;

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

#[test]
fn plain_text_stays_on_this_machine() {
    assert!(is_secure("https://control.example:8443").unwrap());
    for local in ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
        assert!(!is_secure(local).unwrap(), "{local}");
    }
    for wrong in ["http://10.0.0.1:1", "http://localhost.example:1", "control:8443", "ftp://127.0.0.1", "", "/x"] {
        assert!(is_secure(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn tokens_are_one_line_and_never_shown() {
    let good = file(b"secret-1\n");
    let value = token(good.path()).unwrap();
    assert_eq!(value.to_str().unwrap(), "Bearer secret-1");
    assert!(value.is_sensitive() && !format!("{value:?}").contains("secret"));
    for wrong in [&b""[..], b"\n", b"two words", b"two\nlines", &[0xff], &[b'a'; 5_000]] {
        assert!(token(file(wrong).path()).is_err());
    }
    let missing = token(Path::new("/nonexistent/token")).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/token") && missing.contains("No such file"), "{missing}");
}

#[test]
fn anchors_must_be_pem() {
    let error = trust_anchors(file(b"MIIB").path()).unwrap_err().to_string();
    assert!(error.contains("BEGIN CERTIFICATE"), "{error}");
}

#[test]
fn a_certificate_error_is_found_under_io_errors() {
    let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
    assert!(matches!(unreachable(&wrapped, "https://c", "name"), CliError::NotOfMesh { .. }));
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    assert!(matches!(unreachable(&refused, "https://c", "name"), CliError::Unreachable { .. }));
}
