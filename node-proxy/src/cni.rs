//! The CNI plugin `weir-cni`: last in the chain of a node's network configuration, it announces each new pod to the holder and lets it
//! start when the holder says so (CNI specification 1.0.0). Must never change the network itself, nor answer for a holder that is away.

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    handover::{Arrival, HandoverError, Reply, Request, VERSION, channel::Channel},
    limits,
};

/// Name of the executable, and of the type in the network configuration.
pub const PLUGIN: &str = "weir-cni";
/// Versions of the specification whose results this plugin passes on unchanged.
const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The version that an answer is in when the request's cannot be read.
const FALLBACK: &str = "1.0.0";

/// Our entry in a network configuration, and what the runtime adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginConfig {
    /// [`PLUGIN`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The holder's socket.
    pub socket: PathBuf,
    /// Namespaces whose pods start without asking: those that the mesh itself needs to come up.
    #[serde(default)]
    pub exclude_namespaces: Vec<String>,
    /// Given by the runtime.
    #[serde(default, skip_serializing)]
    cni_version: String,
    /// What the plugins before us made; given by the runtime.
    #[serde(default, skip_serializing)]
    prev_result: Option<Value>,
}

impl PluginConfig {
    /// An entry for a configuration file.
    pub fn new(socket: &Path, exclude_namespaces: Vec<String>) -> PluginConfig {
        PluginConfig {
            kind: PLUGIN.to_owned(),
            socket: socket.to_owned(),
            exclude_namespaces,
            cni_version: String::new(),
            prev_result: None,
        }
    }
}

/// Why the runtime gets an error; the numbers are the specification's.
#[derive(Debug, thiserror::Error)]
enum CniError {
    #[error("{0}")]
    Environment(String),
    #[error("the network configuration cannot be read: {0}")]
    Config(#[from] serde_json::Error),
    #[error("cannot read or write: {0}")]
    Io(#[from] io::Error),
    #[error("{PLUGIN} must be chained behind the plugin that makes the pod's network: prevResult is missing")]
    NotChained,
    #[error("weir-holder does not answer at {}: {source}; the pod waits for it. Look at DaemonSet weir-holder on this node", socket.display())]
    Holder { socket: PathBuf, source: HandoverError },
    #[error("the pod may not start yet: {0}")]
    NotYet(String),
}

impl CniError {
    fn code(&self) -> u32 {
        match self {
            CniError::Environment(_) => 4,
            CniError::Io(_) => 5,
            CniError::Config(_) => 6,
            CniError::NotChained => 7,
            // Try again later.
            CniError::Holder { .. } | CniError::NotYet(_) => 11,
        }
    }
}

/// The pod that a call is about, from the environment.
struct Pod {
    uid: String,
    namespace: String,
    netns: PathBuf,
}

impl Pod {
    fn of(arguments: &str, netns: String) -> Result<Pod, CniError> {
        let argument = |key: &str| {
            let found = arguments.split(';').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
            found.map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty())
        };
        let missing =
            |key: &str| CniError::Environment(format!("CNI_ARGS: {key} is missing; kubelet's runtime sets it"));
        Ok(Pod {
            uid: argument("K8S_POD_UID").ok_or_else(|| missing("K8S_POD_UID"))?,
            namespace: argument("K8S_POD_NAMESPACE").ok_or_else(|| missing("K8S_POD_NAMESPACE"))?,
            netns: PathBuf::from(netns),
        })
    }
}

/// Runs one call of the runtime's: parameters in the environment, configuration on standard input.
pub fn run() -> ExitCode {
    let mut version = FALLBACK.to_owned();
    let (answer, code) = match call(&mut version) {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => {
            let answer = json!({ "cniVersion": version, "code": error.code(), "msg": format!("weir: {error}") });
            (Some(answer), ExitCode::FAILURE)
        }
    };
    if let Some(answer) = answer
        && writeln!(io::stdout(), "{answer}").is_err()
    {
        return ExitCode::FAILURE;
    }
    code
}

fn call(version: &mut String) -> Result<Option<Value>, CniError> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let command = variable("CNI_COMMAND");
    if command == "VERSION" {
        return Ok(Some(json!({ "cniVersion": FALLBACK, "supportedVersions": SUPPORTED })));
    }
    let mut text = Vec::new();
    io::stdin().take(limits::CNI_CONFIG_BYTES).read_to_end(&mut text)?;
    let config: PluginConfig = serde_json::from_slice(&text)?;
    if !config.cni_version.is_empty() {
        version.clone_from(&config.cni_version);
    }
    match command.as_str() {
        "ADD" => {
            let pod = Pod::of(&variable("CNI_ARGS"), variable("CNI_NETNS"))?;
            let result = config.prev_result.clone().ok_or(CniError::NotChained)?;
            if !config.exclude_namespaces.contains(&pod.namespace) {
                announced(&config.socket, pod)?;
            }
            Ok(Some(result))
        }
        "DEL" => {
            // A pod must be able to leave without us, and may never have been announced.
            if let Ok(pod) = Pod::of(&variable("CNI_ARGS"), variable("CNI_NETNS"))
                && !config.exclude_namespaces.contains(&pod.namespace)
            {
                let request = Request::Depart { uid: pod.uid, netns: pod.netns };
                let _away = ask(&config.socket, request, limits::CNI_DEPART);
            }
            Ok(None)
        }
        // Nothing of ours in the network can be checked or collected from here: the holder does both by itself.
        "CHECK" | "GC" | "STATUS" => Ok(None),
        other => Err(CniError::Environment(format!("CNI_COMMAND: {other:?} is not known"))),
    }
}

fn announced(socket: &Path, pod: Pod) -> Result<(), CniError> {
    let request = Request::Arrive { uid: pod.uid, namespace: pod.namespace, netns: pod.netns };
    match ask(socket, request, limits::CNI_WAIT + limits::CNI_DEPART) {
        Ok(Arrival::Captured | Arrival::Plain) => Ok(()),
        Ok(Arrival::NotYet { reason }) => Err(CniError::NotYet(reason)),
        Err(source) => Err(CniError::Holder { socket: socket.to_owned(), source }),
    }
}

fn ask(socket: &Path, request: Request, within: Duration) -> Result<Arrival, HandoverError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = async {
        let channel = connected(socket, within).await?;
        channel.send(&Request::Hello { version: VERSION }, &[]).await?;
        channel.send(&request, &[]).await?;
        loop {
            if let (Reply::Arrived { arrival }, _) = channel.receive().await? {
                return Ok(arrival);
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(within, answer).await.map_err(|_elapsed| HandoverError::Timeout)? })
}

/// Connects, also to a holder that starts just now or has its queue full: many pods start at once with the node.
async fn connected(socket: &Path, within: Duration) -> io::Result<Channel> {
    use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
    // The last try is over before the time is, so that its reason is told.
    let deadline = tokio::time::Instant::now() + within.saturating_sub(limits::HOLDER_RETRY * 2);
    loop {
        match Channel::connect(socket) {
            Err(error)
                if matches!(error.kind(), WouldBlock | ConnectionRefused | NotFound)
                    && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(limits::HOLDER_RETRY).await;
            }
            connected => return connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Seen to fail with one try: the socket is not there yet.
    #[test]
    fn a_holder_that_starts_meanwhile_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (asked, socket) = (path.clone(), crate::handover::channel::seqpacket().unwrap());
        let asking = std::thread::spawn(move || {
            let request = Request::Depart { uid: "u".to_owned(), netns: PathBuf::new() };
            ask(&asked, request, Duration::from_secs(10))
        });
        rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        // Bound and not listening is refused, like a file that nobody listens at any more.
        std::thread::sleep(limits::HOLDER_RETRY);
        rustix::net::listen(&socket, 1).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = crate::handover::channel::watched(socket).unwrap();
            let asked = tokio::time::timeout(Duration::from_secs(10), socket.readable()).await;
            asked.expect("it asks again").unwrap().retain_ready();
            let channel = Channel::new(rustix::net::accept(socket.get_ref()).unwrap()).unwrap();
            assert_eq!(channel.receive::<Request>().await.unwrap().0, Request::Hello { version: VERSION });
            assert!(matches!(channel.receive().await.unwrap().0, Request::Depart { .. }));
            channel.send(&Reply::Arrived { arrival: Arrival::Plain }, &[]).await.unwrap();
        });
        assert_eq!(asking.join().unwrap().unwrap(), Arrival::Plain);
    }

    #[test]
    fn the_pod_comes_from_the_runtimes_arguments() {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=u-1";
        let pod = Pod::of(arguments, "/run/netns/a".to_owned()).unwrap();
        assert_eq!((pod.uid.as_str(), pod.namespace.as_str()), ("u-1", "shop"));
        let error = Pod::of("K8S_POD_NAMESPACE=shop", String::new()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("K8S_POD_UID"), "{error}");
        assert_eq!(error.code(), 4);
    }

    #[test]
    fn our_entry_keeps_what_the_runtime_adds_to_itself() {
        let entry = serde_json::to_value(PluginConfig::new(Path::new("/s"), vec!["kube-system".to_owned()])).unwrap();
        assert_eq!(entry, json!({"type": PLUGIN, "socket": "/s", "excludeNamespaces": ["kube-system"]}));
        let given =
            json!({"type": PLUGIN, "name": "pods", "cniVersion": "1.0.0", "socket": "/s", "prevResult": {"ips": []}});
        let config: PluginConfig = serde_json::from_value(given).unwrap();
        assert_eq!(config.cni_version, "1.0.0");
        assert!(config.prev_result.is_some());
    }
}
