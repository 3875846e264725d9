//! What is sent to a captured pod, and what the proxy sends with the holder's sockets.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::net::sockopt;
use weir_node::{
    handover::{Family, PodSpec, SocketKind},
    limits,
};
use weir_tests::fabric::{Fabric, Place};

use super::{
    proxy::{Mode, Proxy},
    stage::{Server, Stage, WITHIN, answer, ask, connect, ip, spec},
};

const PORT: u16 = 8080;

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Connects a holder's socket as the proxy does: from `client`'s address if there is one.
fn dial(socket: OwnedFd, client: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    if let Some(client) = client {
        rustix::net::bind(&socket, &SocketAddr::new(client, 0))?;
    }
    let stream = TcpStream::from(socket);
    match rustix::net::connect(&stream, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let mut wait = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::OUT)];
    let within = rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 };
    if rustix::event::poll(&mut wait, Some(&within))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Err(error) = sockopt::socket_error(&stream)? {
        return Err(error.into());
    }
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(WITHIN))?;
    Ok(stream)
}

fn dial_and_read(proxy: &Proxy, pod: &Place, kind: SocketKind, client: Option<IpAddr>, to: SocketAddr) -> String {
    let socket = proxy.socket(pod.netns.name(), kind, family(to.ip())).unwrap();
    let mut said = String::new();
    io::Read::read_to_string(&mut dial(socket, client, to).unwrap(), &mut said).unwrap();
    said
}

// Seen to fail when the lookup chooses no inbound slot: the application answers `direct`.
#[test]
fn connections_from_outside_go_to_the_proxy_on_every_port() {
    let mut stage = Stage::new();
    let (pod, client) = (stage.pod("server"), stage.pod("client"));
    let far = stage.fabric.pod(1, "far");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    let _servers = [pod.v4, pod.v6].map(|at| Server::start(&pod.netns, at, PORT));
    // On PORT somebody listens, on the other nobody.
    for port in [PORT, 9] {
        for from in [&client, &far] {
            for (to, from_address) in [(pod.v4, from.v4), (pod.v6, from.v6)] {
                let said = ask(&from.netns, SocketAddr::new(to, port)).unwrap();
                assert_eq!(said, answer("inbound", to, port, from_address));
            }
        }
        // As the kubelet does.
        let said = ask(stage.node(), SocketAddr::new(pod.v4, port)).unwrap();
        assert_eq!(said, answer("inbound", pod.v4, port, "10.81.1.1".parse().unwrap()));
        let said = ask(stage.fabric.node(1), SocketAddr::new(pod.v4, port)).unwrap();
        assert_eq!(said, answer("inbound", pod.v4, port, Fabric::node_address(1)));
    }
}

// Seen to fail when the application's answers are not routed by the mark (tcp_fwmark_accept left off): times out.
#[test]
fn the_application_sees_the_real_client_address() {
    let mut stage = Stage::new();
    let pod = stage.pod("server");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    let _servers = [pod.v4, pod.v6].map(|at| Server::start(&pod.netns, at, PORT));
    for (client, to) in [("198.51.100.23", pod.v4), ("10.81.1.77", pod.v4), ("2001:db8:1::23", pod.v6)] {
        let client = client.parse().unwrap();
        let said = dial_and_read(&proxy, &pod, SocketKind::App, Some(client), SocketAddr::new(to, PORT));
        assert_eq!(said, answer("direct", to, PORT, client));
    }
    // A pod that calls itself by a service: a socket on lo would not hear answers to an address of eth0; this kind does.
    for to in [pod.v4, pod.v6] {
        let said = dial_and_read(&proxy, &pod, SocketKind::Upstream, None, SocketAddr::new(to, PORT));
        assert_eq!(said, answer("direct", to, PORT, to));
    }
}

#[test]
fn an_application_on_all_addresses_is_found() {
    let mut stage = Stage::new();
    let pod = stage.pod("server");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    let any: IpAddr = "::".parse().unwrap();
    let _server = Server::start(&pod.netns, any, PORT);
    for (client, to) in [("198.51.100.23", pod.v4), ("2001:db8:1::23", pod.v6)] {
        let client = client.parse().unwrap();
        let said = dial_and_read(&proxy, &pod, SocketKind::App, Some(client), SocketAddr::new(to, PORT));
        assert_eq!(said, answer("direct", to, PORT, client));
    }
}

// Seen to fail when fwmark_reflect is not turned on: the refusal leaves by the default route and the dial times out.
#[test]
fn a_closed_port_of_the_application_refuses_at_once() {
    let mut stage = Stage::new();
    let pod = stage.pod("server");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    for (client, to) in [("198.51.100.23", pod.v4), ("2001:db8:1::23", pod.v6)] {
        let socket = proxy.socket(pod.netns.name(), SocketKind::App, family(to)).unwrap();
        let refused = dial(socket, Some(client.parse().unwrap()), SocketAddr::new(to, PORT)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
    }
}

#[test]
fn an_application_on_localhost_is_not_reachable_from_outside() {
    let mut stage = Stage::new();
    let (pod, client) = (stage.pod("server"), stage.pod("client"));
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    let localhost: IpAddr = "127.0.0.1".parse().unwrap();
    let _server = Server::start(&pod.netns, localhost, PORT);
    // The proxy has the connection, and finds nobody to give it to.
    let said = ask(&client.netns, SocketAddr::new(pod.v4, PORT)).unwrap();
    assert_eq!(said, answer("inbound", pod.v4, PORT, client.v4));
    let socket = proxy.socket(pod.netns.name(), SocketKind::App, Family::V4).unwrap();
    let refused = dial(socket, Some(client.v4), SocketAddr::new(pod.v4, PORT)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

// Seen to fail when `skips_inbound` is taken out of lookup.rs: the proxy answers.
#[test]
fn skipped_inbound_ports_go_to_the_application() {
    let mut stage = Stage::new();
    let (pod, client) = (stage.pod("server"), stage.pod("client"));
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(PodSpec { skip_inbound_ports: vec![(7000, 7001), (9090, 9090)], ..spec(&pod) });
    for (port, who) in [(6999, "inbound"), (7000, "direct"), (7001, "direct"), (7002, "inbound"), (9090, "direct")] {
        for (to, from) in [(pod.v4, client.v4), (pod.v6, client.v6)] {
            let _server = Server::start(&pod.netns, to, port);
            assert_eq!(ask(&client.netns, SocketAddr::new(to, port)).unwrap(), answer(who, to, port, from));
        }
    }
}

// Seen to fail when the mark is not set on upstream sockets: the proxy captures itself.
#[test]
fn the_proxys_own_connections_leave_from_the_pods_address() {
    let mut stage = Stage::new();
    let pod = stage.pod("client");
    let far = stage.fabric.pod(1, "far");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    let _servers = [far.v4, far.v6].map(|at| Server::start(&far.netns, at, PORT));
    for (to, from) in [(far.v4, pod.v4), (far.v6, pod.v6)] {
        let said = dial_and_read(&proxy, &pod, SocketKind::Upstream, None, SocketAddr::new(to, PORT));
        assert_eq!(said, answer("direct", to, PORT, from));
    }
}

// Seen to fail when `is_listener` is taken out of lookup.rs: the listener answers whoever knows its port.
#[test]
fn the_listeners_cannot_be_reached_by_their_own_ports() {
    let mut stage = Stage::new();
    let (pod, client) = (stage.pod("server"), stage.pod("client"));
    let proxy = Proxy::start(&stage, Mode::Keep);
    proxy.enrol(PodSpec { skip_inbound_ports: vec![(1, 65535)], ..spec(&pod) });
    let (outbound, inbound) = proxy.take(pod.netns.name());
    for listener in [&outbound, &inbound] {
        let port = listener.local_addr().unwrap().port();
        let localhost: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        for to in [localhost[0], localhost[1], pod.v4, pod.v6] {
            let refused = connect(&pod.netns, SocketAddr::new(to, port)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
        }
        for to in [pod.v4, pod.v6] {
            let refused = connect(&client.netns, SocketAddr::new(to, port)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
            // Nor by the proxy itself: it would talk to itself for ever.
            let socket = proxy.socket(pod.netns.name(), SocketKind::App, family(to)).unwrap();
            let refused = dial(socket, Some(client_of(to, &client)), SocketAddr::new(to, port)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{to}");
        }
    }
}

fn client_of(to: IpAddr, client: &Place) -> IpAddr {
    if to.is_ipv4() { client.v4 } else { client.v6 }
}

#[test]
fn accepted_and_dialled_connections_notice_dead_peers() {
    fn check(stream: &impl std::os::fd::AsFd, what: &str) {
        let milliseconds = u32::try_from(limits::USER_TIMEOUT.as_millis()).unwrap();
        assert!(sockopt::tcp_nodelay(stream).unwrap(), "{what}");
        assert_eq!(sockopt::tcp_user_timeout(stream).unwrap(), milliseconds, "{what}");
        assert!(sockopt::socket_keepalive(stream).unwrap(), "{what}");
        assert_eq!(sockopt::tcp_keepidle(stream).unwrap(), limits::KEEPALIVE, "{what}");
    }
    let mut stage = Stage::new();
    let (pod, client) = (stage.pod("server"), stage.pod("client"));
    let proxy = Proxy::start(&stage, Mode::Keep);
    proxy.enrol(spec(&pod));
    let (outbound, inbound) = proxy.take(pod.netns.name());
    let accept = |listener: &TcpListener, netns, to| {
        let _client = connect(netns, to).unwrap();
        listener.accept().unwrap().0
    };
    check(&accept(&outbound, &pod.netns, SocketAddr::new("203.0.113.7".parse().unwrap(), PORT)), "outbound");
    check(&accept(&inbound, &client.netns, SocketAddr::new(pod.v4, PORT)), "inbound");
    for kind in [SocketKind::App, SocketKind::Upstream] {
        for family in [Family::V4, Family::V6] {
            check(&proxy.socket(pod.netns.name(), kind, family).unwrap(), "dial");
        }
    }
}

#[test]
fn a_stock_serves_more_dials_than_it_holds() {
    let mut stage = Stage::new();
    let pod = stage.pod("client");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    let started = Instant::now();
    let sockets: Vec<OwnedFd> =
        (0..1000).map(|_| proxy.socket(pod.netns.name(), SocketKind::Upstream, Family::V4).unwrap()).collect();
    eprintln!("1000 dial sockets in {:?}", started.elapsed());
    assert_eq!(sockets.len(), 1000);
    assert!(started.elapsed() < Duration::from_secs(10));
    let unknown = proxy.socket("nobody", SocketKind::App, Family::V4).unwrap_err().to_string();
    assert!(unknown.contains("not captured"), "{unknown}");
}

#[test]
fn traffic_reaches_the_pod_while_rules_are_listed() {
    let mut stage = Stage::new();
    let pod = stage.pod("server");
    let proxy = Proxy::start(&stage, Mode::Answer);
    proxy.enrol(spec(&pod));
    // No rule of ours looks at ports or protocols: those would turn on flow dissection, and drop inbound traffic as martian.
    for line in [ip(&pod.netns, "-4 rule show"), ip(&pod.netns, "-6 rule show")].join("\n").lines() {
        assert!(!line.contains("ipproto") && !line.contains("port"), "{line}");
    }
}
