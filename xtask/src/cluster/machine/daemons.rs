//! The daemons of a machine, in the order in which they start. Must never name a file that only the host has.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    super::layout::{API_PORT, CONTROL_PLANE, Machine, PODS, Place, SERVICES},
    configs,
};

/// How long the control plane waits before it gives a silent node up: short, so that tests of it are.
const NODE_GRACE: &str = "20s";
const ETCD: &str = "http://127.0.0.1:2379";
const ETCD_PEER: &str = "http://127.0.0.1:2380";

/// One daemon.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Must succeed before the next daemon starts.
    pub(super) ready: Option<Check>,
}

/// A command that succeeds once a daemon serves, and what follows then.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Archives to hand to the container runtime.
    pub(super) import: Option<PathBuf>,
}

impl Daemon {
    fn new(name: &'static str, program: PathBuf, arguments: Vec<String>) -> Self {
        Self { name, program, arguments, ready: None }
    }

    /// The command that starts it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// etcd, API server, controller manager, scheduler.
pub(super) fn control_plane(place: &Place, programs: &Path) -> Vec<Daemon> {
    let etcd = words(&format!(
        "--name e --data-dir /var/lib/etcd --listen-client-urls {ETCD} --advertise-client-urls {ETCD} \
         --listen-peer-urls {ETCD_PEER} --initial-advertise-peer-urls {ETCD_PEER} --initial-cluster e={ETCD_PEER} \
         --unsafe-no-fsync --log-level warn"
    ));
    let as_user = |user: &str| {
        let config = place.kubeconfig(user).display().to_string();
        vec![
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            // The only one of its kind.
            "--leader-elect=false".to_owned(),
        ]
    };
    let mut controllers = as_user("controller-manager");
    controllers.extend(words(&format!(
        "--service-account-private-key-file={} --root-ca-file={} --cluster-signing-cert-file={} \
         --cluster-signing-key-file={} --use-service-account-credentials=true --allocate-node-cidrs=false \
         --cluster-cidr={PODS} --node-monitor-period=2s --node-monitor-grace-period={NODE_GRACE}",
        place.pki("sa.key").display(),
        place.pki("ca.crt").display(),
        place.pki("ca.crt").display(),
        place.pki("ca.key").display(),
    )));
    let mut api = Daemon::new("kube-apiserver", programs.join("kube-apiserver"), api_server(place));
    // The controller manager exits when it is refused at its first request.
    api.ready = Some(Check {
        program: programs.join("kubectl"),
        arguments: vec![
            format!("--kubeconfig={}", place.admin().display()),
            "get".into(),
            "--raw".into(),
            "/readyz".into(),
        ],
        import: None,
    });
    vec![
        Daemon::new("etcd", programs.join("etcd"), etcd),
        api,
        Daemon::new("kube-controller-manager", programs.join("kube-controller-manager"), controllers),
        Daemon::new("kube-scheduler", programs.join("kube-scheduler"), as_user("scheduler")),
    ]
}

fn api_server(place: &Place) -> Vec<String> {
    let pki = |file: &str| place.pki(file).display().to_string();
    let mut arguments = words(&format!(
        "--etcd-servers={ETCD} --advertise-address={} --secure-port={API_PORT} --service-cluster-ip-range={SERVICES} \
         --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true",
        CONTROL_PLANE.address
    ));
    // Names of nodes are in no DNS; and webhooks are dialled at pods' addresses, because no kube-proxy runs here.
    arguments.extend(words("--kubelet-preferred-address-types=InternalIP --enable-aggregator-routing=true"));
    let files = [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("kubelet-client-certificate", "kubelet-client.crt"),
        ("kubelet-client-key", "kubelet-client.key"),
        ("kubelet-certificate-authority", "ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("requestheader-client-ca-file", "front.crt"),
        ("proxy-client-cert-file", "front-client.crt"),
        ("proxy-client-key-file", "front-client.key"),
    ];
    arguments.extend(files.iter().map(|(flag, file)| format!("--{flag}={}", pki(file))));
    arguments.extend(words(
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local \
         --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
         --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra-",
    ));
    arguments
}

/// containerd, kubelet, kube-proxy.
pub(super) fn node(place: &Place, machine: Machine, programs: &Path) -> Vec<Daemon> {
    let mut containerd =
        Daemon::new("containerd", "containerd".into(), words(&format!("--config {}", configs::CONTAINERD)));
    containerd.ready = Some(Check { program: "ctr".into(), arguments: words("version"), import: Some(place.images()) });
    let kubelet = words(&format!(
        "--config={} --kubeconfig={} --hostname-override={} --node-ip={} -v=2",
        configs::KUBELET,
        place.kubeconfig(machine.name).display(),
        machine.name,
        machine.address
    ));
    vec![
        containerd,
        Daemon::new("kubelet", programs.join("kubelet"), kubelet),
        Daemon::new("kube-proxy", programs.join("kube-proxy"), words(&format!("--config={}", configs::PROXY))),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{control_plane, node};
    use crate::cluster::layout::{MACHINES, Place};

    #[test]
    fn arguments_are_whole_words_even_for_a_long_path() {
        let place = Place::at("/var/tmp/x".into()).expect("absolute");
        let daemons = control_plane(&place, Path::new("/programs"));
        let names: Vec<_> = daemons.iter().map(|daemon| daemon.name).collect();
        assert_eq!(names, ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
        let has = |index: usize, argument: &str| daemons[index].arguments.iter().any(|word| word == argument);
        assert!(has(1, "--service-account-key-file=/var/tmp/x/pki/sa.pub"));
        assert!(has(2, "--node-monitor-grace-period=20s"));
        // The next daemon must find an API server that answers.
        assert!(daemons[1].ready.is_some());
        assert!(node(&place, MACHINES[1], Path::new("/programs"))[0].ready.is_some());
    }
}
