//! Traffic that moves from one version to the other.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use weir_tests::wait;

use crate::stage::{HTTP1, PATIENCE, Stage};

fn weights(one: u32, two: u32) -> String {
    format!(
        "  rules: [{{backendRefs: [{{name: v1, port: PORT, weight: {one}}}, {{name: v2, port: PORT, weight: {two}}}]}}]"
    )
}

/// The share of a version is its weight; 4,000 requests.
#[test]
fn shares_are_the_weights() {
    let stage = Stage::start();
    stage.route(&weights(9, 1));
    let shares = stage.shares(4_000);
    // Four standard deviations of a binomial distribution are 76.
    assert!((324..476).contains(&shares["v2"]) && shares["v1"] + shares["v2"] == 4_000, "{shares:?}");
    stage.route(&weights(0, 5));
    wait::until("all goes to v2", PATIENCE, || (stage.shares(50).get("v2") == Some(&50)).then_some(()));
}

/// A canary that goes from nothing to all under load of kept connections: no request fails, and each step takes effect on connections
/// that are open.
#[test]
fn a_canary_fails_no_request() {
    canary(|stage, share| stage.write_route("main", "demo", &weights(100 - share, share)));
}

/// The same by a TrafficSplit, as tools of progressive delivery write it.
#[test]
fn a_canary_by_a_split_fails_no_request() {
    canary(|stage, share| {
        let text = format!(
            "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {{name: web, namespace: demo}}\n\
             spec: {{service: web, backends: [{{service: v1, weight: {}}}, {{service: v2, weight: {share}}}]}}\n",
            100 - share
        );
        stage.mesh.manifest("split", &text);
    });
}

fn canary(step: impl Fn(&Stage, u32)) {
    let stage = Stage::start();
    step(&stage, 0);
    wait::until("v1 has all", PATIENCE, || (stage.shares(40).get("v1") == Some(&40)).then_some(()));
    let (stop, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let second = AtomicU32::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut tcp = stage
                        .client
                        .place
                        .netns
                        .enter(|| TcpStream::connect((stage.web.as_str(), HTTP1)))
                        .expect("a connection");
                    tcp.set_read_timeout(Some(PATIENCE)).expect("a limit");
                    while !stop.load(Ordering::Relaxed) {
                        tcp.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").expect("a request");
                        let mut answer = Vec::new();
                        let mut buffer = [0; 4096];
                        while !answer.ends_with(b"removed=\n") {
                            let read = tcp.read(&mut buffer).expect("an answer");
                            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&answer));
                            answer.extend_from_slice(&buffer[..read]);
                        }
                        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
                        count.fetch_add(1, Ordering::Relaxed);
                        if answer.windows(9).any(|window| window == b"server=v2") {
                            second.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for share in [5, 25, 50, 100] {
            step(&stage, share);
            // Among each 200 answers, until it is seen there.
            let (mut all, mut part) = (count.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
            wait::until(&format!("{share} % are seen"), PATIENCE, || {
                let (now, now_part) = (count.load(Ordering::Relaxed), second.load(Ordering::Relaxed));
                if now - all < 200 {
                    return None;
                }
                let seen = f64::from(now_part - part) / f64::from(now - all);
                (all, part) = (now, now_part);
                ((seen - f64::from(share) / 100.0).abs() < 0.1).then_some(())
            });
            assert!(!clients.iter().any(thread::ScopedJoinHandle::is_finished), "a client gave up");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(count.load(Ordering::Relaxed) > 1_000, "{count:?}");
}

/// A backend whose endpoints are not ready leaves its share to the others, and takes it again.
#[test]
fn a_backend_without_endpoints_leaves_its_share() {
    let mut stage = Stage::start();
    stage.route(&weights(1, 1));
    stage.servers[1].ready = false;
    let options = weir_tests::mesh::ServiceOptions::new("v2", HTTP1, HTTP1);
    let address = stage.address(1).to_owned();
    stage.mesh.endpoints(&options, &address, &[&stage.servers[1]]);
    wait::until("v1 has all", PATIENCE, || (stage.shares(40).get("v1") == Some(&40)).then_some(()));
    stage.servers[1].ready = true;
    stage.mesh.endpoints(&options, &address, &[&stage.servers[1]]);
    wait::until("v2 is back", PATIENCE, || stage.shares(40).contains_key("v2").then_some(()));
}
