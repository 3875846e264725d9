//! Endpoints that come and go under open requests.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use weir_tests::mesh::{Pod, ServiceOptions};

use crate::{
    stage::{HTTP1, RAW, Stage, dial, listen},
    wire::Wire,
};

/// A replica that is no longer ready gets no new request within a second; the open one is answered to its end.
#[test]
fn a_replica_made_unready_finishes_what_is_open_and_gets_nothing_new() {
    let mut stage = Stage::new();
    let options = ServiceOptions::new("both", RAW, RAW);
    let address = stage.service(&options, &[0, 1]);
    let target = format!("{address}:{RAW}");
    let listeners = [0, 1].map(|index| listen(&stage.servers[index].pod, RAW));
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
    }
    // Opens requests until one is at the replica that goes; this one stays open, half answered.
    let (mut open, mut slow) = weir_tests::wait::until("a request at the far replica", Duration::from_secs(10), || {
        let mut wire = dial(&stage.client, &target);
        wire.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        let (index, mut app) = accept_any(&listeners);
        app.head();
        app.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ");
        wire.head();
        (index == 0).then_some((wire, app))
    });
    // Another kept-alive connection, whose next requests must not stick to the replica that goes.
    let mut kept = dial(&stage.client, &target);
    stage.servers[0].pod.ready = false;
    stage.mesh.endpoints(&options, &address, &[&stage.servers[0].pod, &stage.servers[1].pod]);
    let changed = Instant::now();
    let mut last = changed;
    let mut apps: Vec<Wire> = Vec::new();
    let mut asked = 0;
    while changed.elapsed() < Duration::from_secs(3) {
        asked += 1;
        kept.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        let index = answer_any(&listeners, &mut apps);
        if index == 0 {
            last = Instant::now();
        }
        assert_eq!(kept.head().status(), 200);
    }
    assert!(asked > 100, "only {asked} requests");
    assert!(last - changed < Duration::from_secs(1), "requests still came {:?} after the change", last - changed);
    assert!(!open.has_more() || open.seen() == "half ", "{}", open.seen());
    slow.send("done.");
    assert_eq!(open.exactly(10), b"half done.");
}

fn accept_any(listeners: &[std::net::TcpListener; 2]) -> (usize, Wire) {
    weir_tests::wait::until("a connection to either replica", Duration::from_secs(10), || {
        let (index, (tcp, _)) =
            listeners.iter().enumerate().find_map(|(index, listener)| Some((index, listener.accept().ok()?)))?;
        tcp.set_nonblocking(false).unwrap();
        Some((index, Wire::new(tcp)))
    })
}

/// Answers the one request that is under way, on a connection there was or on a new one; says which replica's it was.
fn answer_any(listeners: &[std::net::TcpListener; 2], apps: &mut Vec<Wire>) -> usize {
    let mut app = weir_tests::wait::until("a request", Duration::from_secs(10), || {
        for listener in listeners {
            if let Ok((tcp, _)) = listener.accept() {
                tcp.set_nonblocking(false).unwrap();
                apps.push(Wire::new(tcp));
            }
        }
        let position = apps.iter_mut().position(Wire::has_more)?;
        Some(apps.swap_remove(position))
    });
    app.head();
    app.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let far = listeners[0].local_addr().unwrap().port() == app.tcp.local_addr().unwrap().port()
        && app.tcp.local_addr().unwrap().ip().to_canonical().to_string().starts_with("10.81.2.");
    apps.push(app);
    usize::from(!far)
}

/// Replicas that come are used, those that leave with their pod are forgotten, and no request fails meanwhile.
#[test]
fn replicas_come_and_go_without_a_failed_request() {
    let mut stage = Stage::with_nginx();
    let options = ServiceOptions::new("both", HTTP1, HTTP1);
    let address = stage.service(&options, &[0]);
    let url = format!("http://{address}:{HTTP1}/name");
    let names = |stage: &Stage, count: usize| -> BTreeSet<String> {
        (0..count).map(|_| stage.client.get(&url).trim().to_owned()).collect()
    };
    assert_eq!(names(&stage, 5).into_iter().collect::<Vec<_>>(), ["far-2"]);
    let set = |stage: &Stage, pods: &[&Pod]| stage.mesh.endpoints(&options, &address, pods);
    for _round in 0..3 {
        set(&stage, &[&stage.servers[1].pod]);
        until_only(&stage, &url, "near-1");
        set(&stage, &[&stage.servers[0].pod, &stage.servers[1].pod]);
        // Either may be the faster one.
        assert!(names(&stage, 20).iter().all(|name| name == "far-2" || name == "near-1"));
        set(&stage, &[&stage.servers[0].pod]);
        until_only(&stage, &url, "far-2");
    }
}

fn until_only(stage: &Stage, url: &str, name: &str) {
    weir_tests::wait::until(&format!("only {name} is used"), Duration::from_secs(5), || {
        (0..10).all(|_| stage.client.get(url).trim() == name).then_some(())
    });
}
