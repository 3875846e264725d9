//! What the mesh takes of a node with 20 idle meshed pods.

use crate::{
    nodes::Nodes,
    shop::{Shop, figure},
};

/// Resident bytes of holder, proxy with its supervisor, control; printed and kept, and within generous bounds (a leak is caught, noise is not).
#[test]
fn forty_idle_pods_cost_little_memory() {
    let shop = Shop::open("footprint", 36);
    shop.mesh(36);
    let nodes = Nodes::open(&shop.cluster);
    let mut control = 0;
    for node in nodes.names() {
        let holder = resident(&nodes, node, "/weir-node holder");
        let proxy = resident(&nodes, node, "/weir-node proxy");
        control += resident(&nodes, node, "/weir-control --kubernetes");
        figure(
            &format!("{node} with 20 meshed pods: kilobytes of holder, of proxy with its supervisor"),
            format!("{holder}, {proxy}"),
        );
        assert!((1_000..20_000).contains(&holder) && (1_000..40_000).contains(&proxy), "{node}: {holder}, {proxy}");
    }
    figure("kilobytes of control", control);
    assert!((1_000..60_000).contains(&control), "{control}");
}

/// Sum over the processes of that command line, in kilobytes.
fn resident(nodes: &Nodes<'_>, node: &str, pattern: &str) -> u64 {
    let of = |pid: u32| -> u64 {
        let said = nodes.run(node, &format!("grep VmRSS /proc/{pid}/status"));
        said.split_whitespace()
            .nth(1)
            .and_then(|kilobytes| kilobytes.parse().ok())
            .unwrap_or_else(|| panic!("{pid}: {said}"))
    };
    nodes.processes(node, pattern).into_iter().map(of).sum()
}
