//! Certificates made by openssl, authorities as docs/install.md tells people to. Must never be made in another way: what is tested is
//! what is documented.

use std::{path::Path, process::Command};

/// Makes `NAME.crt` and `NAME.key` of an authority in a folder: self-signed, or below another one that was made there.
///
/// # Panics
/// When openssl does not.
pub fn make(folder: &Path, name: &str, above: Option<&str>) {
    let (certificate, key) = above.map(|above| (format!("{above}.crt"), format!("{above}.key"))).unzip();
    let mut arguments = vec!["-addext", "keyUsage=critical,keyCertSign"];
    if let (Some(certificate), Some(key)) = (&certificate, &key) {
        arguments.extend(["-CA", certificate, "-CAkey", key]);
    }
    request(folder, name, &arguments);
}

/// Makes `NAME.crt` and `NAME.key` of a server that vouches for itself.
///
/// # Panics
/// When openssl does not.
pub fn self_signed(folder: &Path, name: &str) {
    request(folder, name, &["-addext", "keyUsage=critical,digitalSignature"]);
}

fn request(folder: &Path, name: &str, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    command.args(["-days", "365", "-subj", &format!("/CN={name}")]).args(arguments);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
    let output = command.output().expect("openssl");
    assert!(output.status.success(), "{output:?}");
}
