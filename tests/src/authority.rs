//! Certificate authorities made by openssl as docs/install.md tells people to. Must never be made in another way: what is tested is
//! what is documented.

use std::{path::Path, process::Command};

/// Makes `NAME.crt` and `NAME.key` in a folder: self-signed, or below another one that was made there.
///
/// # Panics
/// When openssl does not.
pub fn make(folder: &Path, name: &str, above: Option<&str>) {
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
    command.args(["-days", "365", "-addext", "keyUsage=critical,keyCertSign", "-subj", &format!("/CN={name}")]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
    if let Some(above) = above {
        command.args(["-CA", &format!("{above}.crt"), "-CAkey", &format!("{above}.key")]);
    }
    let output = command.output().expect("openssl");
    assert!(output.status.success(), "{output:?}");
}
