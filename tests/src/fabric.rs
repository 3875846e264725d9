//! Two nodes and their pods as network namespaces: bridges, one wire between the nodes, IPv4 and IPv6.
//!
//! Must never know Weir: this is what a machine and a CNI plugin give.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netns::Netns;

/// Number of nodes.
pub const NODES: usize = 2;
/// Interface between the nodes, on each of them: where a capture sees all that leaves a node.
pub const WIRE: &str = "wire";

/// Two connected nodes. Pods of node 1 live in 10.81.1.0/24 and fd81:1::/64, those of node 2 in 10.81.2.0/24 and fd81:2::/64.
#[derive(Debug)]
pub struct Fabric {
    nodes: [Netns; NODES],
    pods: [u8; NODES],
}

/// A pod's namespace and addresses.
#[derive(Debug)]
pub struct Place {
    /// Its namespace.
    pub netns: Netns,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Index of its node.
    pub node: usize,
}

impl Default for Fabric {
    fn default() -> Fabric {
        Fabric::new()
    }
}

impl Fabric {
    /// Makes both nodes and the wire.
    pub fn new() -> Fabric {
        let nodes = [Netns::new("node1"), Netns::new("node2")];
        nodes.iter().for_each(without_duplicate_detection);
        nodes[0].ip(&format!("link add {WIRE} type veth peer name {WIRE} netns {}", nodes[1].name()));
        for (index, node) in nodes.iter().enumerate() {
            let (own, other) = (index + 1, NODES - index);
            node.sysctl("ipv4/ip_forward", "1");
            node.sysctl("ipv6/conf/all/forwarding", "1");
            node.ip("link add pods type bridge forward_delay 0");
            node.ip(&format!("address add 10.81.{own}.1/24 dev pods"));
            node.ip(&format!("address add fd81:{own}::1/64 dev pods nodad"));
            node.ip("link set pods up");
            node.ip(&format!("address add 10.80.0.{own}/24 dev {WIRE}"));
            node.ip(&format!("address add fd80::{own}/64 dev {WIRE} nodad"));
            node.ip(&format!("link set {WIRE} up"));
            node.ip(&format!("route add 10.81.{other}.0/24 via 10.80.0.{other}"));
            node.ip(&format!("-6 route add fd81:{other}::/64 via fd80::{other}"));
        }
        Fabric { nodes, pods: [1; NODES] }
    }

    /// Namespace of a node, by index from 0.
    pub fn node(&self, index: usize) -> &Netns {
        &self.nodes[index]
    }

    /// Address of a node on the wire.
    pub fn node_address(index: usize) -> IpAddr {
        Ipv4Addr::new(10, 80, 0, low(index + 1)).into()
    }

    /// Makes a pod on a node.
    ///
    /// # Panics
    /// After 250 pods on one node.
    pub fn pod(&mut self, node: usize, name: &str) -> Place {
        self.pods[node] += 1;
        let number = self.pods[node];
        assert!(number < 252, "too many pods for one subnet");
        let own = node + 1;
        let netns = Netns::new(name);
        without_duplicate_detection(&netns);
        let host = &self.nodes[node];
        host.ip(&format!("link add pod{number} type veth peer name eth0 netns {}", netns.name()));
        host.ip(&format!("link set pod{number} master pods"));
        host.ip(&format!("link set pod{number} up"));
        netns.ip(&format!("address add 10.81.{own}.{number}/24 dev eth0"));
        netns.ip(&format!("address add fd81:{own}::{number:x}/64 dev eth0 nodad"));
        netns.ip("link set eth0 up");
        netns.ip(&format!("route add default via 10.81.{own}.1"));
        netns.ip(&format!("-6 route add default via fd81:{own}::1"));
        let v4 = Ipv4Addr::new(10, 81, low(own), number).into();
        let v6 = Ipv6Addr::new(0xfd81, u16::from(low(own)), 0, 0, 0, 0, 0, u16::from(number)).into();
        Place { netns, v4, v6, node }
    }
}

/// Link-local addresses are usable at once: neighbours are not found before, and detection takes up to three seconds.
fn without_duplicate_detection(netns: &Netns) {
    for scope in ["all", "default"] {
        netns.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0");
    }
}

fn low(number: usize) -> u8 {
    u8::try_from(number).expect("a small number")
}
