//! Authorities, certificates and kubeconfigs of the cluster, made by openssl. Must never leave half a set behind: it is made aside and moved.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::layout::{API_PORT, API_SERVICE, CONTROL_PLANE, Machine, Place};
use crate::child::{self, Outcome};

/// Ten years: a cluster for development is thrown away long before.
const DAYS: &str = "3650";

/// One certificate to make.
struct Leaf {
    file: String,
    authority: &'static str,
    subject: String,
    usage: &'static str,
    names: Option<String>,
    /// Gets a kubeconfig of its own.
    user: bool,
}

impl Leaf {
    fn client(file: &str, authority: &'static str, subject: &str, user: bool) -> Self {
        Self { file: file.into(), authority, subject: subject.into(), usage: "clientAuth", names: None, user }
    }
}

fn leaves() -> Vec<Leaf> {
    let mut leaves = vec![
        Leaf {
            file: "apiserver".into(),
            authority: "ca",
            subject: "/CN=kube-apiserver".into(),
            usage: "serverAuth",
            names: Some(format!(
                "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,\
                 DNS:localhost,IP:127.0.0.1,IP:{},IP:{API_SERVICE}",
                CONTROL_PLANE.address
            )),
            user: false,
        },
        Leaf::client("kubelet-client", "ca", "/O=system:masters/CN=kube-apiserver-kubelet-client", false),
        Leaf::client("front-client", "front", "/CN=front-proxy-client", false),
        Leaf::client("admin", "ca", "/O=system:masters/CN=admin", true),
        Leaf::client("controller-manager", "ca", "/CN=system:kube-controller-manager", true),
        Leaf::client("scheduler", "ca", "/CN=system:kube-scheduler", true),
        Leaf::client("proxy", "ca", "/CN=system:kube-proxy", true),
    ];
    leaves.extend(Machine::nodes().map(|node| Leaf {
        file: node.name.into(),
        authority: "ca",
        subject: format!("/O=system:nodes/CN=system:node:{}", node.name),
        usage: "serverAuth,clientAuth",
        names: Some(format!("DNS:{},IP:{}", node.name, node.address)),
        user: true,
    }));
    leaves
}

/// Makes everything, unless it is there.
///
/// # Errors
/// openssl is missing or refuses.
pub(super) fn ensure(place: &Place) -> Outcome {
    if place.pki("ca.crt").exists() {
        return Ok(());
    }
    let made = place.root().join("pki.new");
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    fs::create_dir_all(&made)?;
    fs::create_dir_all(place.root().join("conf"))?;
    for (file, name) in [("ca", "kubernetes-ca"), ("front", "front-proxy-ca")] {
        authority(&made, file, name)?;
    }
    for leaf in leaves() {
        certificate(&made, &leaf)?;
        if leaf.user {
            fs::write(place.kubeconfig(&leaf.file), kubeconfig(&made, &leaf.file)?)?;
        }
    }
    let account = made.join("sa.key");
    openssl(Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-out"]).arg(&account))?;
    openssl(
        Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(account).arg("-out").arg(made.join("sa.pub")),
    )?;
    fs::rename(made, place.root().join("pki"))?;
    Ok(())
}

fn openssl(command: &mut Command) -> Outcome {
    child::output(command).map(drop)
}

fn request(folder: &Path, file: &str, subject: &str) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder);
    openssl.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject]);
    openssl.args(["-keyout", &format!("{file}.key")]);
    openssl
}

fn authority(folder: &Path, file: &str, name: &str) -> Outcome {
    let mut command = request(folder, file, &format!("/CN={name}"));
    command.args(["-x509", "-days", DAYS, "-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
    openssl(command.args(["-out", &format!("{file}.crt")]))
}

fn certificate(folder: &Path, leaf: &Leaf) -> Outcome {
    let Leaf { file, authority, subject, usage, names, .. } = leaf;
    let mut extensions = format!("keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n");
    if let Some(names) = names {
        extensions.push_str(&format!("subjectAltName={names}\n"));
    }
    fs::write(folder.join("leaf.ext"), extensions)?;
    openssl(request(folder, file, subject).args(["-out", "leaf.csr"]))?;
    let mut sign = Command::new("openssl");
    sign.current_dir(folder).args(["x509", "-req", "-in", "leaf.csr", "-days", DAYS, "-extfile", "leaf.ext"]);
    sign.args(["-CA", &format!("{authority}.crt"), "-CAkey", &format!("{authority}.key"), "-CAcreateserial"]);
    openssl(sign.args(["-out", &format!("{file}.crt")]))
}

/// JSON, which is YAML too. Paths would not do: the file must work wherever it is copied.
fn kubeconfig(folder: &Path, user: &str) -> Outcome<String> {
    let data = |file: String| -> Outcome<String> {
        let encoded = child::output(Command::new("base64").arg("--wrap=0").arg(folder.join(file)))?;
        Ok(encoded.trim().to_owned())
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "weir", "cluster": {
            "server": format!("https://{}:{API_PORT}", CONTROL_PLANE.address),
            "certificate-authority-data": data("ca.crt".into())?,
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": data(format!("{user}.crt"))?,
            "client-key-data": data(format!("{user}.key"))?,
        }}],
        "contexts": [{"name": "weir", "context": {"cluster": "weir", "user": user}}],
        "current-context": "weir",
    });
    Ok(serde_json::to_string_pretty(&config)?)
}
