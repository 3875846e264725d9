//! Service addresses for pods outside the mesh: nftables rules as kube-proxy writes them. Must never see traffic of the mesh, which dials pods.

use std::{fmt::Write as _, io::Write as _, process::Stdio};

use crate::{fabric::NODES, mesh::Mesh};

/// One port of a service.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    /// ClusterIP.
    pub(super) address: String,
    /// The service's own port.
    pub(super) port: u16,
    /// Pods, as `address . port`.
    pub(super) pods: Vec<String>,
}

/// Loads the rules on all nodes.
///
/// # Panics
/// When the kernel has no nftables NAT.
pub(super) fn install(mesh: &Mesh, forwards: &[Forward]) {
    for node in 0..NODES {
        let mut command = mesh.fabric.node(node).command("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut nft = command.spawn().expect("nft");
        let mut input = nft.stdin.take().expect("nft's input");
        input.write_all(rules(node, forwards).as_bytes()).expect("nft's input");
        drop(input);
        let output = nft.wait_with_output().expect("nft");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "nft refused the rules for service addresses (does the kernel have nft_nat?): {said}"
        );
    }
}

fn rules(node: usize, forwards: &[Forward]) -> String {
    let mut text = String::from("table ip kube-proxy {\nchain services {\ntype nat hook prerouting priority dstnat;\n");
    for Forward { address, port, pods } in forwards {
        let map: Vec<String> = pods.iter().enumerate().map(|(index, pod)| format!("{index} : {pod}")).collect();
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "ip daddr {address} tcp dport {port} dnat to numgen random mod {} map {{ {} }}",
            pods.len(),
            map.join(", ")
        );
    }
    // A pod of the same node would answer its neighbour directly, from an address that this one did not dial.
    let subnet = format!("10.81.{}.0/24", node + 1);
    text += "}\nchain neighbours {\ntype nat hook postrouting priority srcnat;\n";
    text + &format!("ct status dnat ip saddr {subnet} ip daddr {subnet} masquerade\n}}\n}}\n")
}
