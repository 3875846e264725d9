//! Typed labels: what a series is about, and how that is written.
//!
//! Must never let two different labels be written alike: Prometheus refuses a scrape with duplicates.

use std::{
    fmt::{self, Display, Write as _},
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use weir_core::{
    identity::Identity,
    inbound::{Ruler, Ruling},
    outbound::NoTlsReason,
    snapshot::PodRef,
};

/// Seen from the workload: requests that it receives, or that it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Towards a local workload.
    Inbound,
    /// From a local workload.
    Outbound,
}

impl Direction {
    /// Value of the label `direction`.
    pub fn label(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// Value of the label `tls`, with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsLabel {
    /// Both ends are authenticated.
    True,
    /// TLS is switched off for this process.
    Disabled,
    /// Plain, with the reason.
    NoIdentity(NoTlsReason),
    /// TLS of the application's own, passed through.
    Opaque {
        /// Server name of the ClientHello.
        sni: Option<Arc<str>>,
    },
}

impl TlsLabel {
    /// `true`, or why not: what reports and people get to see.
    pub fn summary(&self) -> &'static str {
        match self {
            TlsLabel::True => "true",
            TlsLabel::Disabled => "disabled",
            TlsLabel::NoIdentity(reason) => reason.label(),
            TlsLabel::Opaque { .. } => "opaque",
        }
    }

    fn write(&self, text: &mut LabelText) {
        match self {
            TlsLabel::True => text.push("tls", "true"),
            TlsLabel::Disabled => text.push("tls", "disabled"),
            TlsLabel::NoIdentity(reason) => {
                text.push("tls", "no_identity");
                text.push("no_tls_reason", reason.label());
            }
            TlsLabel::Opaque { sni } => {
                text.push("tls", "opaque");
                if let Some(sni) = sni {
                    text.push("sni", sni);
                }
            }
        }
    }
}

/// What one HTTP series is about.
#[derive(Clone, Debug)]
pub struct HttpLabels {
    /// Seen from `workload`.
    pub direction: Direction,
    /// The local workload.
    pub workload: Arc<PodRef>,
    /// The other side, when it is a pod that is known: `dst_*` outbound, `src_*` inbound.
    pub peer: Option<Arc<PodRef>>,
    /// How the bytes are secured.
    pub tls: TlsLabel,
    /// Who the client proved to be.
    pub client_id: Option<Identity>,
    /// Who the server has to prove to be.
    pub server_id: Option<Identity>,
    /// Host or `:authority`, outbound only. The client chooses it: bounded by the registry.
    pub authority: Option<Arc<str>>,
    /// Where the bytes go.
    pub target_addr: SocketAddr,
    /// Service that was dialled: namespace, name.
    pub service: Option<(Arc<str>, Arc<str>)>,
    /// Who may call the workload, inbound only.
    pub policy: Option<Arc<Ruling>>,
}

/// What one series of connections is about.
#[derive(Clone, Debug)]
pub struct TcpLabels {
    /// Seen from `workload`.
    pub direction: Direction,
    /// Accepted by the proxy (label `peer="src"`), or opened by it (`peer="dst"`).
    pub peer_is_src: bool,
    /// The local workload.
    pub workload: Arc<PodRef>,
    /// The other side, when it is a pod that is known.
    pub peer: Option<Arc<PodRef>>,
    /// How the bytes are secured.
    pub tls: TlsLabel,
    /// Who the client proved to be.
    pub client_id: Option<Identity>,
    /// Who the server has to prove to be.
    pub server_id: Option<Identity>,
    /// Where the bytes go.
    pub target_addr: SocketAddr,
    /// Service that was dialled: namespace, name.
    pub service: Option<(Arc<str>, Arc<str>)>,
    /// Who may call the workload, inbound only.
    pub policy: Option<Arc<Ruling>>,
}

/// All of a pod that is written into labels; the node is not.
pub(super) fn written(pod: &PodRef) -> [&str; 7] {
    let PodRef { namespace, name, service_account, owner_kind, owner_name, node_name: _, zone, pod_template_hash } =
        pod;
    [namespace, name, service_account, owner_kind, owner_name, zone, pod_template_hash]
}

/// IPv4 in IPv6 and flow labels are not written: addresses that differ only there are one.
fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

impl HttpLabels {
    fn key(&self) -> impl Hash + Eq + '_ {
        (
            (self.direction, written(&self.workload), self.peer.as_deref().map(written)),
            (&self.tls, &self.client_id, &self.server_id, &self.authority),
            (canonical(self.target_addr), &self.service, &self.policy),
        )
    }
}

impl TcpLabels {
    fn key(&self) -> impl Hash + Eq + '_ {
        (
            (self.direction, self.peer_is_src, written(&self.workload), self.peer.as_deref().map(written)),
            (&self.tls, &self.client_id, &self.server_id),
            (canonical(self.target_addr), &self.service, &self.policy),
        )
    }
}

macro_rules! equal_when_written_alike {
    ($labels:ty) => {
        impl PartialEq for $labels {
            fn eq(&self, other: &Self) -> bool {
                self.key() == other.key()
            }
        }
        impl Eq for $labels {}
        impl Hash for $labels {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.key().hash(state);
            }
        }
    };
}

equal_when_written_alike!(HttpLabels);
equal_when_written_alike!(TcpLabels);

/// Labels that a registry can hold.
pub(crate) trait Labels: Hash + Eq + Clone + 'static {
    /// Seen from `workload`.
    fn direction(&self) -> Direction;
    /// The local workload, whose bound counts.
    fn workload(&self) -> &Arc<PodRef>;
    /// Who may call the local workload; none for what it sends.
    fn policy(&self) -> Option<&Ruling>;
    /// Appends `name="value"` pairs.
    fn write(&self, text: &mut LabelText);
}

impl Labels for HttpLabels {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn workload(&self) -> &Arc<PodRef> {
        &self.workload
    }

    fn policy(&self) -> Option<&Ruling> {
        self.policy.as_deref()
    }

    fn write(&self, text: &mut LabelText) {
        text.push("direction", self.direction.label());
        if let Some(authority) = &self.authority {
            text.push("authority", authority);
        }
        write_target(text, self.target_addr);
        self.tls.write(text);
        write_identities(text, &self.client_id, &self.server_id);
        write_policy(text, self.policy(), self.target_addr);
        write_inbound_route(text, self.policy());
        write_pods(text, self.direction, &self.workload, self.peer.as_deref(), self.service.as_ref());
    }
}

impl Labels for TcpLabels {
    fn direction(&self) -> Direction {
        self.direction
    }

    fn workload(&self) -> &Arc<PodRef> {
        &self.workload
    }

    fn policy(&self) -> Option<&Ruling> {
        self.policy.as_deref()
    }

    fn write(&self, text: &mut LabelText) {
        text.push("direction", self.direction.label());
        text.push("peer", if self.peer_is_src { "src" } else { "dst" });
        write_target(text, self.target_addr);
        self.tls.write(text);
        write_identities(text, &self.client_id, &self.server_id);
        write_policy(text, self.policy(), self.target_addr);
        write_pods(text, self.direction, &self.workload, self.peer.as_deref(), self.service.as_ref());
    }
}

fn write_target(text: &mut LabelText, address: SocketAddr) {
    let (ip, port) = canonical(address);
    text.display("target_addr", SocketAddr::new(ip, port));
    text.display("target_ip", ip);
    text.display("target_port", port);
}

fn write_identities(text: &mut LabelText, client: &Option<Identity>, server: &Option<Identity>) {
    if let Some(client) = client {
        text.push("client_id", client.as_str());
    }
    if let Some(server) = server {
        text.push("server_id", server.as_str());
    }
}

/// Linkerd's names: without a Server on the port, the default policy is named.
fn write_policy(text: &mut LabelText, policy: Option<&Ruling>, target: SocketAddr) {
    let (group, kind, name) = match policy.map(|ruling| &ruling.ruler) {
        None => return,
        Some(Ruler::Default(policy)) => ("", "default", policy.name()),
        Some(Ruler::Server(server)) => (&*server.group, &*server.kind, &*server.name),
        Some(Ruler::Unknown(name)) => {
            ("policy.linkerd.io", "server", name.split_once('/').map_or("", |(_, name)| name))
        }
    };
    text.push("srv_group", group);
    text.push("srv_kind", kind);
    text.push("srv_name", name);
    text.display("srv_port", target.port());
}

/// Linkerd's names: without routes on the Server, `default`.
fn write_inbound_route(text: &mut LabelText, policy: Option<&Ruling>) {
    let Some(ruling) = policy else { return };
    let [group, kind, name] = match &ruling.route {
        Some(route) => [&*route.group, &*route.kind, &*route.name],
        None => ["", "default", "default"],
    };
    text.push("route_group", group);
    text.push("route_kind", kind);
    text.push("route_name", name);
}

fn write_pods(
    text: &mut LabelText,
    direction: Direction,
    workload: &PodRef,
    peer: Option<&PodRef>,
    service: Option<&(Arc<str>, Arc<str>)>,
) {
    write_pod(text, "", workload);
    let prefix = match direction {
        Direction::Inbound => "src_",
        Direction::Outbound => "dst_",
    };
    if let Some(peer) = peer {
        write_pod(text, prefix, peer);
    }
    match (service, peer) {
        (Some((namespace, name)), Some(peer)) if *namespace != peer.namespace => {
            text.display("dst_service", format_args!("{name}.{namespace}"));
        }
        (Some((_, name)), Some(_)) => text.push("dst_service", name),
        (Some((namespace, name)), None) => {
            text.push("dst_service", name);
            text.push("dst_service_namespace", namespace);
        }
        (None, _) => {}
    }
}

/// Names of a pod under Linkerd's label names; without prefix they are what Linkerd's scrape configuration adds.
pub(crate) fn write_pod(text: &mut LabelText, prefix: &'static str, pod: &PodRef) {
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            text.prefixed(prefix, name, value);
        }
    };
    put("namespace", &pod.namespace);
    put("pod", &pod.name);
    put("serviceaccount", &pod.service_account);
    match &*pod.owner_kind {
        kind @ ("deployment" | "statefulset" | "daemonset" | "cronjob" | "replicaset" | "replicationcontroller") => {
            put(kind, &pod.owner_name);
        }
        // `job` is Prometheus' own.
        "job" if prefix.is_empty() => put("k8s_job", &pod.owner_name),
        "job" => put("job", &pod.owner_name),
        kind => {
            put("workload_kind", kind);
            put("workload_name", &pod.owner_name);
        }
    }
    put("zone", &pod.zone);
    put("pod_template_hash", &pod.pod_template_hash);
}

/// `name="value"` pairs in the making, values escaped.
#[derive(Default)]
pub(crate) struct LabelText(String);

impl LabelText {
    /// What was written so far.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends one pair.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        self.prefixed("", name, value);
    }

    /// Appends one pair whose value is made on the fly.
    pub(crate) fn display(&mut self, name: &str, value: impl Display) {
        self.open("", name);
        // Writing into a String cannot fail.
        let _infallible = write!(Escaped(&mut self.0), "{value}");
        self.0.push('"');
    }

    fn prefixed(&mut self, prefix: &str, name: &str, value: &str) {
        self.open(prefix, name);
        escape(value, &mut self.0);
        self.0.push('"');
    }

    fn open(&mut self, prefix: &str, name: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(prefix);
        self.0.push_str(name);
        self.0.push_str("=\"");
    }
}

struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, self.0);
        Ok(())
    }
}

/// Both text formats escape backslash, quote and newline, and nothing else.
fn escape(value: &str, into: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            other => into.push(other),
        }
    }
}
