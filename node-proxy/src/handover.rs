//! What holder and proxy say to each other: JSON in a sequenced-packet Unix socket, descriptors beside it.
//!
//! Must never carry a byte that came from the network, nor the contents of the vault.

pub mod channel;
pub mod client;
mod stock;

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use client::{Expected, HolderClient};

/// What is to be captured of one pod, and how.
///
/// Also written down by the holder, for a successor of another version: what that one does not know it ignores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSpec {
    /// Pod uid.
    pub uid: String,
    /// The pod's own addresses; empty: those that its namespace has.
    pub addresses: Vec<IpAddr>,
    /// File of the network namespace; absent: the holder looks the uid up in its directory of pods.
    pub netns: Option<PathBuf>,
    /// Inbound ports (first, last) that go straight to the application.
    pub skip_inbound_ports: Vec<(u16, u16)>,
    /// Destination ports (first, last) that are not captured.
    pub skip_outbound_ports: Vec<(u16, u16)>,
    /// Destinations that are not captured.
    pub skip_subnets: Vec<IpNet>,
    /// Without a listener connections go on uncaptured, instead of being refused.
    pub permissive: bool,
    /// Ports at which connections of the node itself go straight to the application: kubelet wants to know no more than that it answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub direct_probe_ports: Vec<u16>,
    /// Connections of the node itself to other ports are marked, so that the proxy knows them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mark_node: bool,
}

/// What a dial socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketKind {
    /// From the pod's own address to elsewhere; never captured.
    Upstream,
    /// To the pod's own application over `lo`; may be bound to any address, so that the application sees the real client.
    App,
}

/// Address family of a dial socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One thing that capture needs or likes of this kernel, as tried by the holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureReport {
    /// Stable name.
    pub name: String,
    /// Whether capture works at all without it.
    pub required: bool,
    /// Whether it is there.
    pub present: bool,
    /// What it is for.
    pub detail: String,
}

/// From proxy to holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// First message; nothing else is said before the answer. Beside it: nothing.
    Hello {
        /// [`VERSION`] of the sender.
        version: u32,
    },
    /// A pod whose listeners the proxy has from an earlier holder. Beside it: outbound and inbound listener.
    Return {
        /// Pod uid.
        uid: String,
    },
    /// All that could be returned was: announce what is held.
    Ready,
    /// The proxy drains: it accepts no connection any more.
    Leaving,
    /// Capture this pod, or change how.
    Enrol {
        /// The pod.
        spec: PodSpec,
    },
    /// Capture it no more.
    Unenrol {
        /// Pod uid.
        uid: String,
    },
    /// Make dial sockets.
    Sockets {
        /// Pod uid.
        uid: String,
        /// What for.
        kind: SocketKind,
        /// Of which family.
        family: Family,
        /// How many, at most [`crate::limits::STOCK_MAX`].
        count: usize,
    },
    /// Keep what is beside this, instead of what was kept before.
    Keep,
    /// What can this kernel do?
    Features,
    /// What control said of pods that are not captured: whether a new one may start. Comes in parts and counts as a whole.
    Expect {
        /// Where in the whole this is.
        part: Part,
        /// Uids of pods that start uncaptured.
        plain: Vec<String>,
        /// Namespaces whose pods are captured unless they say otherwise.
        meshed_namespaces: Vec<String>,
    },
    /// From the CNI plugin: a pod has its network and no process of its own yet. Answered by `Arrived` when it may start.
    Arrive {
        /// Pod uid.
        uid: String,
        /// Namespace of the pod.
        namespace: String,
        /// File of its network namespace.
        netns: PathBuf,
    },
    /// From the CNI plugin: the pod's network goes away.
    Depart {
        /// Pod uid.
        uid: String,
        /// File of the network namespace that goes; empty: the runtime does not know it any more.
        netns: PathBuf,
    },
}

/// Where in a whole a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Begins anew.
    First,
    /// More of it.
    Further,
    /// All is said.
    Last {
        /// Control is connected and has told everything: what it has not named it will name soon.
        current: bool,
    },
}

/// What became of a pod that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Arrival {
    /// Captured: it may start.
    Captured,
    /// Not opted in: it may start.
    Plain,
    /// It may not start now; the container runtime tries again.
    NotYet {
        /// Why, for the pod's events.
        reason: String,
    },
}

/// From holder to proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Answers `Hello`.
    Welcome {
        /// [`VERSION`] of the holder.
        version: u32,
    },
    /// What an earlier proxy asked to keep is beside this.
    Vault,
    /// A pod is captured. Beside it: outbound and inbound listener.
    Enrolled {
        /// Pod uid.
        uid: String,
        /// Changes with every enrolment: sockets made for another one are useless.
        generation: u32,
    },
    /// A pod is captured no more.
    Unenrolled {
        /// Pod uid.
        uid: String,
    },
    /// A pod is not captured.
    Refused {
        /// Pod uid.
        uid: String,
        /// Why, and what to check.
        reason: String,
    },
    /// All that is held was announced.
    Synced,
    /// Dial sockets are beside this.
    Sockets {
        /// Pod uid.
        uid: String,
        /// Of which enrolment.
        generation: u32,
        /// What for.
        kind: SocketKind,
        /// Of which family.
        family: Family,
    },
    /// No dial sockets.
    NoSockets {
        /// Pod uid.
        uid: String,
        /// What for.
        kind: SocketKind,
        /// Of which family.
        family: Family,
        /// Why.
        reason: String,
    },
    /// What this kernel can do.
    Features {
        /// One by one.
        features: Vec<FeatureReport>,
    },
    /// Answers `Arrive` and `Depart`.
    Arrived {
        /// What became of it.
        arrival: Arrival,
    },
}

/// Version of these messages. A proxy and a holder of different versions say so and do not talk.
pub const VERSION: u32 = 2;

/// What the proxy's side tells the proxy.
#[derive(Debug)]
pub enum HolderEvent {
    /// What an earlier proxy asked to keep.
    Vault(std::os::fd::OwnedFd),
    /// A pod is captured.
    Enrolled {
        /// Pod uid.
        uid: String,
        /// Dual-stack, non-blocking listener of what the pod sends.
        outbound: std::os::fd::OwnedFd,
        /// The same of what is sent to the pod.
        inbound: std::os::fd::OwnedFd,
    },
    /// A pod is captured no more: accept what is queued, then close the listeners.
    Unenrolled {
        /// Pod uid.
        uid: String,
    },
    /// A pod is not captured.
    Refused {
        /// Pod uid.
        uid: String,
        /// Why, and what to check.
        reason: String,
    },
    /// Everything that the holder holds was announced.
    Synced,
    /// The holder is away. The client returns by itself; listeners in hand stay good.
    Lost,
}

/// Why the other side does not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HandoverError {
    /// Talking failed.
    #[error("talking to the holder: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The message is not one of ours.
    #[error("a handover message could not be read: {0}; holder and proxy are of versions that do not fit")]
    Message(#[source] Arc<serde_json::Error>),
    /// The holder is older or newer than we are.
    #[error("holder and proxy of this node do not fit: the one speaks version {holder}, the other {VERSION}; roll DaemonSet {} on this node",
        if *holder < VERSION { "weir-holder (delete its pod)" } else { "weir-proxy" })]
    Version {
        /// What the holder speaks.
        holder: u32,
    },
    /// The other side closed.
    #[error("the holder closed the connection; its log says why")]
    Closed,
    /// Nobody answered.
    #[error("no answer from the holder; check that `weir-node holder` runs on this node")]
    Timeout,
    /// The holder says no.
    #[error("{0}")]
    Refused(String),
    /// A message came without the descriptors that belong to it.
    #[error("a handover message came with {found} descriptors instead of {expected}")]
    Descriptors {
        /// How many there were.
        found: usize,
        /// How many belong to it.
        expected: usize,
    },
}

impl From<io::Error> for HandoverError {
    fn from(error: io::Error) -> HandoverError {
        HandoverError::Io(Arc::new(error))
    }
}

impl From<rustix::io::Errno> for HandoverError {
    fn from(error: rustix::io::Errno) -> HandoverError {
        io::Error::from(error).into()
    }
}

impl From<serde_json::Error> for HandoverError {
    fn from(error: serde_json::Error) -> HandoverError {
        HandoverError::Message(Arc::new(error))
    }
}
