//! Which connections come out of the node's own namespace: written down where they begin, marked where they arrive.

use std::{
    collections::HashMap,
    io::Read as _,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
};

use weir_ebpf_common::PROBE_MARK;
use weir_node::handover::PodSpec;
use weir_tests::netns::Netns;

use super::{
    proxy::{Mode, Proxy},
    stage::{Server, Stage, WITHIN, answer, ask, connect, spec},
};

const PORT: u16 = 8080;
const DIRECT: u16 = 9090;
/// Connections of each side, all at a time.
const MANY: u16 = 200;

fn is_marked(accepted: &TcpStream) -> bool {
    socket2::SockRef::from(accepted).mark().unwrap() == PROBE_MARK
}

// Seen to fail when the hook compares no namespace cookie: the other node's and the pods' connections are marked too.
#[test]
fn the_nodes_own_connections_are_marked_and_nobody_elses() {
    let mut stage = Stage::new();
    let (pod, client) = (stage.pod("server"), stage.pod("client"));
    let proxy = Proxy::start(&stage, Mode::Keep);
    proxy.enrol(PodSpec { mark_node: true, ..spec(&pod) });
    let (_outbound, inbound) = proxy.take(pod.netns.name());
    let clients: [(&str, &Netns, bool); 3] = [
        ("the node", stage.node(), true),
        ("the other node", stage.fabric.node(1), false),
        ("a pod", &client.netns, false),
    ];
    for (who, from, known) in clients {
        for to in [pod.v4, pod.v6] {
            let _connected = connect(from, SocketAddr::new(to, PORT)).unwrap();
            let (accepted, _peer) = inbound.accept().unwrap();
            assert_eq!(is_marked(&accepted), known, "{who} to {to}");
        }
    }
    // A pod that asked for nothing of the kind.
    let other = stage.pod("other");
    proxy.enrol(spec(&other));
    let (_outbound, inbound) = proxy.take(other.netns.name());
    let _connected = connect(stage.node(), SocketAddr::new(other.v4, PORT)).unwrap();
    assert!(!is_marked(&inbound.accept().unwrap().0));
}

// With the same ports on both nodes, so that only the addresses differ. Seen to fail as above.
#[test]
fn many_at_a_time_are_told_apart() {
    let mut stage = Stage::new();
    let pod = stage.pod("server");
    let proxy = Proxy::start(&stage, Mode::Keep);
    proxy.enrol(PodSpec { mark_node: true, ..spec(&pod) });
    let (_outbound, inbound) = proxy.take(pod.netns.name());
    let dial = |from: &Netns, port: u16| {
        from.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port).into()).unwrap();
            socket.connect_timeout(&SocketAddr::new(pod.v4, PORT).into(), WITHIN).unwrap();
            socket
        })
    };
    let nodes = [stage.node(), stage.fabric.node(1)];
    let seen = thread::scope(|scope| {
        let dialling: Vec<_> = nodes
            .map(|node| scope.spawn(move || (0..MANY).map(|index| dial(node, 20_000 + index)).collect::<Vec<_>>()))
            .into();
        let mut seen: HashMap<(IpAddr, bool), u16> = HashMap::new();
        for _connection in 0..2 * MANY {
            let (accepted, peer) = inbound.accept().unwrap();
            *seen.entry((peer.ip().to_canonical(), is_marked(&accepted))).or_default() += 1;
        }
        drop(dialling);
        seen
    });
    let (own, other): (IpAddr, IpAddr) = (IpAddr::from([10, 81, 1, 1]), IpAddr::from([10, 80, 0, 2]));
    assert_eq!(seen, HashMap::from([((own, true), MANY), ((other, false), MANY)]));
}

// Seen to fail when `has_direct_probes` is taken out of lookup.rs: the proxy answers.
#[test]
fn at_some_ports_the_node_meets_the_application() {
    let mut stage = Stage::new();
    let (pod, client) = (stage.pod("server"), stage.pod("client"));
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(PodSpec { mark_node: true, direct_probe_ports: vec![DIRECT], ..spec(&pod) });
    let _servers = [pod.v4, pod.v6].map(|at| Server::start(&pod.netns, at, DIRECT));
    let node = "10.81.1.1".parse().unwrap();
    let far = stage.fabric.node(1);
    assert_eq!(ask(stage.node(), SocketAddr::new(pod.v4, DIRECT)).unwrap(), answer("direct", pod.v4, DIRECT, node));
    assert!(ask(stage.node(), SocketAddr::new(pod.v6, DIRECT)).unwrap().starts_with("direct at"));
    assert_eq!(ask(stage.node(), SocketAddr::new(pod.v4, PORT)).unwrap(), answer("inbound", pod.v4, PORT, node));
    for from in [&client.netns, far] {
        assert!(ask(from, SocketAddr::new(pod.v4, DIRECT)).unwrap().starts_with("inbound at"));
    }
    // Taken back, and in force without another enrolment.
    proxy.ask_for(PodSpec { mark_node: true, direct_probe_ports: vec![PORT], ..spec(&pod) });
    weir_tests::wait::until("the other port", WITHIN, || {
        let said = ask(stage.node(), SocketAddr::new(pod.v4, DIRECT)).ok()?;
        said.starts_with("inbound at").then_some(())
    });
    let refused = connect(stage.node(), SocketAddr::new(pod.v4, PORT)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "nobody listens there");
}

// Without the hook the node connects as anybody would who has its address and that port. Seen to fail without `forget` in probes.rs: the
// application answers.
#[test]
fn a_refused_probe_leaves_nothing_behind() {
    let mut stage = Stage::new();
    let pod = stage.pod("server");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(PodSpec { mark_node: true, direct_probe_ports: vec![DIRECT], ..spec(&pod) });
    let to = SocketAddr::new(pod.v4, DIRECT);
    let dial = |port: u16| {
        stage.node().enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port).into()).unwrap();
            socket.connect_timeout(&to.into(), WITHIN).map(|()| TcpStream::from(socket))
        })
    };
    let ports = 61_001..61_004;
    for port in ports.clone() {
        assert_eq!(dial(port).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "nobody listens there");
    }
    let _server = Server::start(&pod.netns, pod.v4, DIRECT);
    std::fs::remove_file(stage.pins().join("sock_ops")).unwrap();
    // The kernel detaches a moment later.
    weir_tests::wait::until("a connection that nobody wrote down", WITHIN, || {
        ask(stage.node(), to).ok()?.starts_with("inbound at").then_some(())
    });
    for port in ports {
        let mut said = String::new();
        dial(port).unwrap().read_to_string(&mut said).unwrap();
        assert!(said.starts_with("inbound at"), "{port}: {said}");
    }
}
