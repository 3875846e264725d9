//! A bare etcd and kube-apiserver, and control with exactly its own rights. Must never touch a cluster that it did not start.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SigningKey as _,
};
use rustix::process::Signal;
use weir_tests::{daemon::Daemon, mesh::binary, wait};

pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Everything, in one folder that goes with it.
pub(crate) struct Stage {
    api: Option<Daemon>,
    _etcd: Daemon,
    etcd_port: u16,
    port: u16,
    folder: tempfile::TempDir,
}

/// What of an installation is tested here: accounts and their rights. Nothing runs.
const KINDS: [&str; 6] = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
const BESIDE: &str = include_str!("beside.yaml");

/// Those objects as `weir install` prints them.
fn installed() -> String {
    let output = Command::new(binary("weir")).args(["install", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let items = list["items"].as_array_mut().expect("a list");
    items.retain(|item| KINDS.iter().any(|kind| item["kind"] == *kind));
    assert!(items.len() > KINDS.len(), "{list}");
    list.to_string()
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// This machine's address towards others. Nothing is sent for it.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).expect("a route to anywhere");
    socket.local_addr().unwrap().ip()
}

/// Where kubernetes' programs are.
pub(crate) fn binaries() -> PathBuf {
    let named = std::env::var_os("WEIR_KUBERNETES").map(PathBuf::from);
    named.expect("WEIR_KUBERNETES names the folder with etcd, kube-apiserver and kubectl: run `cargo xtask cluster test apiserver`")
}

impl Stage {
    /// Brings both up and installs.
    pub(crate) fn start() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let (etcd_port, peer_port) = (free_port(), free_port());
        let mut etcd = Command::new(binaries().join("etcd"));
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        etcd.args(["--name", "e", "--log-level", "warn", "--unsafe-no-fsync"])
            .arg("--data-dir")
            .arg(folder.path().join("etcd"))
            .args(["--listen-client-urls", &url(etcd_port), "--advertise-client-urls", &url(etcd_port)])
            .args(["--listen-peer-urls", &url(peer_port), "--initial-advertise-peer-urls", &url(peer_port)])
            .args(["--initial-cluster", &format!("e={}", url(peer_port))]);
        let etcd = Daemon::start("etcd", etcd, folder.path());
        let mut stage = Stage { api: None, _etcd: etcd, etcd_port, port: free_port(), folder };
        stage.start_api();
        stage.install();
        stage
    }

    /// Applies what is there before control runs.
    pub(crate) fn install(&self) {
        self.apply(&installed());
        self.apply(BESIDE);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A signal to the API server: stopped, it is a machine that lost its power with all connections open.
    pub(crate) fn signal_api(&self, signal: Signal) {
        self.api.as_ref().expect("a running API server").signal(signal);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// (Re)starts the API server and waits until it serves.
    pub(crate) fn start_api(&mut self) {
        let file = |name: &str| self.path(name).display().to_string();
        let mut command = Command::new(binaries().join("kube-apiserver"));
        command
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"])
            .arg(format!("--secure-port={}", self.port))
            .args(["--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC"])
            // Who lets pods in only when their accounts exist is another process.
            .args(["--disable-admission-plugins=ServiceAccount", "--service-account-issuer=https://test.local"])
            .arg(format!("--tls-cert-file={}", file("server.crt")))
            .arg(format!("--tls-private-key-file={}", file("server.key")))
            .arg(format!("--client-ca-file={}", file("ca.crt")))
            .arg(format!("--service-account-key-file={}", file("accounts.pub")))
            .arg(format!("--service-account-signing-key-file={}", file("accounts.key")));
        let daemon = self.api.insert(Daemon::start("kube-apiserver", command, self.folder.path()));
        let log = self.folder.path().join("kube-apiserver.log");
        let is_running = daemon.is_running();
        let mut last = String::new();
        let ready = wait::within(Duration::from_secs(60), || {
            let answer = self.try_kubectl(&["get", "--raw", "/readyz"]);
            last = answer.as_ref().err().cloned().unwrap_or_default();
            answer.ok()
        });
        let said = fs::read_to_string(log).unwrap_or_default();
        assert!(ready.is_some(), "the API server (running: {is_running}) is not ready: {last}\n{said}");
    }

    /// Lets etcd forget all history, after some of it that the API server has not seen: whoever watches from before must list anew.
    pub(crate) fn compact(&self) {
        let call = |path: &str, body: &str| {
            let url = format!("http://127.0.0.1:{}/v3/kv/{path}", self.etcd_port);
            let output = Command::new("curl").args(["-sf", "-X", "POST", "-d", body, &url]).output().expect("curl");
            assert!(output.status.success(), "etcd {path}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        for _ in 0..10 {
            // Key "x", value "y".
            call("put", r#"{"key":"eA==","value":"eQ=="}"#);
        }
        let answer = call("range", r#"{"key":"eA=="}"#);
        let revision = answer.split_once(r#""revision":""#).and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
        call("compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
    }

    /// A token as the API server signs it, with another end: the shortest that can be asked for lives ten minutes.
    pub(crate) fn token_until(&self, token: &str, ends: i64) -> String {
        let parts: Vec<&str> = token.split('.').collect();
        let mut claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        for (name, at) in [("iat", ends - 700), ("nbf", ends - 700), ("exp", ends)] {
            claims[name] = at.into();
        }
        let key = KeyPair::from_pem(&fs::read_to_string(self.path("accounts.key")).unwrap()).unwrap();
        let signed = format!("{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = raw_signature(&key.sign(signed.as_bytes()).unwrap());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Kills the API server, as a machine that fails would.
    pub(crate) fn kill_api(&mut self) {
        self.api.take().expect("a running API server").kill();
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binaries().join("kubectl"));
        let output =
            command.arg("--kubeconfig").arg(self.kubeconfig("admin", None)).args(arguments).output().expect("kubectl");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, text: &str) {
        let file = self.path("apply.yaml");
        fs::write(&file, text).unwrap();
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file.display().to_string()]);
    }

    /// Waits until kubectl prints what `wanted` takes.
    pub(crate) fn until(&self, what: &str, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        wait::within(SOON, || {
            last = self.try_kubectl(arguments).unwrap_or_else(|error| error);
            wanted(&last).then(|| last.clone())
        })
        .unwrap_or_else(|| panic!("{what}; kubectl {arguments:?} says:\n{last}"))
    }

    /// A pod that a scheduler put on a node.
    pub(crate) fn pod(&self, namespace: &str, name: &str, node: &str, account: &str) {
        self.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{nodeName: {node}, serviceAccountName: {account}, containers: [{{name: app, image: none}}]}}\n"
        ));
    }

    /// Its kubelet says that it runs.
    pub(crate) fn run_pod(&self, namespace: &str, name: &str, address: &str) {
        let status =
            format!(r#"{{"status":{{"phase":"Running","podIP":"{address}","podIPs":[{{"ip":"{address}"}}]}}}}"#);
        self.kubectl(&["-n", namespace, "patch", "pod", name, "--subresource=status", "-p", &status]);
    }

    pub(crate) fn uid(&self, namespace: &str, name: &str) -> String {
        self.kubectl(&["-n", namespace, "get", "pod", name, "-o", "jsonpath={.metadata.uid}"])
    }

    /// A token as kubelet would project it into a pod of an account.
    pub(crate) fn token(&self, account: &str, audience: &str, pod: Option<&str>) -> String {
        let mut arguments = vec!["-n", "weir", "create", "token", account, "--audience", audience];
        arguments.extend(pod.into_iter().flat_map(|pod| ["--bound-object-kind", "Pod", "--bound-object-name", pod]));
        self.kubectl(&arguments)
    }

    /// A kubeconfig of the administrator, or of whom a token names.
    pub(crate) fn kubeconfig(&self, user: &str, token: Option<&str>) -> PathBuf {
        let path = self.path(&format!("{user}.kubeconfig"));
        let file = |name: &str| self.path(name).display().to_string();
        let credential = match token {
            Some(token) => format!("token: {token}"),
            None => format!("client-certificate: {}, client-key: {}", file("admin.crt"), file("admin.key")),
        };
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {{{credential}}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n",
            self.port,
            file("ca.crt"),
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// A replica of control, with the rights of its account only.
    pub(crate) fn control(&self, replica: &str) -> Control {
        self.control_in(replica, "weir")
    }

    /// One that is told that it runs in another namespace.
    pub(crate) fn control_in(&self, replica: &str, namespace: &str) -> Control {
        self.control_at(replica, namespace, Ipv4Addr::LOCALHOST.into())
    }

    /// One at an address that an EndpointSlice takes, which loopback is not, and the slice that names it.
    pub(crate) fn replica(&self, replica: &str) -> Control {
        let control = self.control_at(replica, "weir", own_address());
        self.apply(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {replica}, namespace: weir, labels: {{kubernetes.io/service-name: weir-control}}}}\naddressType: IPv4\nports: [{{name: grpc, port: {}}}]\nendpoints: [{{addresses: [{}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {replica}, namespace: weir}}}}]\n",
            control.port, control.address
        ));
        control
    }

    fn control_at(&self, replica: &str, namespace: &str, address: IpAddr) -> Control {
        let token = self.kubectl(&["-n", "weir", "create", "token", "weir-control", "--duration=1h"]);
        let (port, admin) = (free_port(), free_port());
        let mut command = Command::new(Path::new(&std::env::var("WEIR_BINARIES").unwrap()).join("weir-control"));
        command
            .arg("--kubernetes")
            .args([
                "--listen",
                &SocketAddr::new(address, port).to_string(),
                "--admin-listen",
                &format!("127.0.0.1:{admin}"),
            ])
            .env("KUBECONFIG", self.kubeconfig(replica, Some(&token)))
            .env("POD_NAME", replica)
            .env("POD_NAMESPACE", namespace)
            .env_remove("WEIR_LOG");
        let daemon = Daemon::start(replica, command, self.folder.path());
        Control { daemon, address, port, admin }
    }

    /// The published trust anchors.
    pub(crate) fn anchors(&self) -> String {
        let map = ["-n", "weir", "get", "configmap", "weir-trust-anchors", "-o", "jsonpath={.data.ca\\.crt}"];
        self.until("trust anchors are published", &map, |text| text.contains("BEGIN CERTIFICATE"))
    }

    /// Whether an event with this reason was written about a pod, and its note.
    pub(crate) fn event(&self, namespace: &str, pod: &str, reason: &str) -> String {
        let selector = format!("regarding.name={pod},reason={reason}");
        let arguments = ["-n", namespace, "get", "events.events.k8s.io", "--field-selector", &selector];
        let arguments = [&arguments[..], &["-o", "jsonpath={.items[*].note}"]].concat();
        self.until(&format!("event {reason} on {pod}"), &arguments, |text| !text.is_empty())
    }
}

/// A running replica.
pub(crate) struct Control {
    pub(crate) daemon: Daemon,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) admin: u16,
}

impl Control {
    /// As `weir` and nodes write it.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", SocketAddr::new(self.address, self.port))
    }

    /// Status and text of `/ready`.
    pub(crate) fn ready(&self) -> Option<String> {
        let output = Command::new("curl").args(["-s", &format!("http://127.0.0.1:{}/ready", self.admin)]).output();
        output.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub(crate) fn until_ready(self) -> Control {
        wait::until("control is ready", SOON, || self.ready().filter(|text| text == "ready"));
        self
    }
}

/// Two integers of ASN.1 as JWS has them: 32 bytes each.
fn raw_signature(der: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    let mut rest = &der[2..];
    for _ in 0..2 {
        let (integer, after) = rest[2..].split_at(usize::from(rest[1]));
        let digits = integer.strip_prefix(&[0]).unwrap_or(integer);
        raw.extend(std::iter::repeat_n(0, 32 - digits.len()));
        raw.extend_from_slice(digits);
        rest = after;
    }
    raw
}

fn certificates(folder: &Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    authority.distinguished_name.push(DnType::CommonName, "test");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    let accounts = KeyPair::generate().unwrap();
    fs::write(folder.join("accounts.key"), accounts.serialize_pem()).unwrap();
    fs::write(folder.join("accounts.pub"), accounts.public_key_pem()).unwrap();
    for (name, common, organization, usage) in [
        ("server", "kube-apiserver", "", ExtendedKeyUsagePurpose::ServerAuth),
        ("admin", "admin", "system:masters", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
