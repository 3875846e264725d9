//! Copies of requests, from YAML to bytes: `shadow` is the mirror, `taker` the backend that shows what the request itself was.

use std::{fs, io::Write as _, net::TcpStream};

use weir_tests::{
    daemon::Daemon,
    mesh::{NAMESPACE, Pod, ServiceOptions, ServicePort},
    nginx, wait,
};

use crate::{
    flaky::{self, GRPC},
    recorder::{Arrived, Manner, Recorder},
    stage::{Answer, HTTP1, HTTP2, PATIENCE, Stage, ask},
    stingy::{Half, Stingy},
    turns::{Turn, listen, play},
};

const TAKER: u16 = 9000;
const SHADOW: u16 = 9001;
/// Ports in front of those two that speak HTTP/2.
const FRONT: u16 = 100;

const ALL: &str = "{type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: PORT}}}";

/// A stage with both Services.
struct Scene {
    stage: Stage,
    taker: Recorder,
    shadow: Recorder,
    _fronts: Vec<Daemon>,
}

impl Scene {
    /// `taker` is on the other node; `shadow` on both, its copies in one list.
    fn start(manner: Manner) -> Scene {
        let mut stage = Stage::start();
        let taker = Recorder::start(&[(&stage.servers[0], TAKER)], Manner::Answers);
        let shadow = Recorder::start(&[(&stage.servers[0], SHADOW), (&stage.servers[1], SHADOW)], manner);
        let fronts = (0..2).map(|index| front(&stage, &stage.servers[index])).collect();
        let options = |name: &str, port: u16| {
            let http2 = ServicePort { name: "http2", port: HTTP2, target: port + FRONT, protocol: None };
            ServiceOptions::new(name, HTTP1, port).port(http2)
        };
        stage.mesh.service(&options("taker", TAKER), &[&stage.servers[0]]);
        stage.mesh.service(&options("shadow", SHADOW), &[&stage.servers[0], &stage.servers[1]]);
        Scene { stage, taker, shadow, _fronts: fronts }
    }

    /// Waits until requests for `/` are answered by `taker`, which is then what every rule's other paths are.
    fn route(&self, rules: &str) {
        self.stage.route(&format!("  rules:\n{rules}  - {{backendRefs: [{{name: taker, port: PORT}}]}}"));
        for get in [Stage::get, Stage::get_http2] {
            wait::until("all Services are known", PATIENCE, || {
                (get(&self.stage, "/", &[]).status == 200).then_some(())
            });
        }
        self.taker.all();
        assert_eq!(self.shadow.all().len(), 0, "nothing was to be copied yet");
    }

    fn file(&self, bytes: usize) -> (String, Vec<u8>) {
        let body: Vec<u8> = (0..bytes).map(|index| b'a' + (index % 23) as u8).collect();
        let file = self.stage.mesh.path("body");
        fs::write(&file, &body).expect("a file");
        (format!("@{}", file.display()), body)
    }

    /// Copies that ended so.
    fn ended(&self, how: &str) -> f64 {
        ended(&self.stage, how)
    }
}

/// nginx that takes HTTP/2 for both servers of a pod.
fn front(stage: &Stage, pod: &Pod) -> Daemon {
    let server = |port: u16| {
        format!(
            "server {{ listen [::]:{} ipv6only=off http2; client_max_body_size 0; location / {{ proxy_pass http://127.0.0.1:{port}; \
             proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection \"\"; proxy_request_buffering off; }} }}\n",
            port + FRONT
        )
    };
    let name = format!("{}-front", pod.name);
    let folder = stage.mesh.path(&name);
    nginx::run(&pod.place.netns, &name, &(server(TAKER) + &server(SHADOW)), &folder, &stage.mesh.path("logs"))
}

fn ended(stage: &Stage, how: &str) -> f64 {
    let result = format!("result=\"{how}\"");
    stage.sum(0, "weir_mirrored_requests_total", &["parent_name=\"web\"", "backend_name=\"shadow\"", &result])
}

/// With and without bodies, of a known length and of none, over HTTP/1 and HTTP/2, to both nodes: the copy is what the request was at the mirror's
/// place among the filters. A mirror of the backend gets them too; two of one rule get two. Nothing is counted for the route but the request.
/// Seen to fail with copies of what the request was after all filters.
#[test]
fn each_request_is_copied_whole() {
    let scene = Scene::start(Manner::Answers);
    let set = |name: &str, value: &str| {
        format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: {name}, value: {value}}}]}}}}")
    };
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /inner}}}";
    scene.route(&format!(
        "  - {{matches: [{{path: {{value: /copied}}}}], filters: [{}, {rewrite}, {ALL}, {}], backendRefs: [{{name: taker, port: PORT}}]}}
  - {{matches: [{{path: {{value: /backend}}}}], backendRefs: [{{name: taker, port: PORT, filters: [{}, {ALL}]}}]}}
  - {{matches: [{{path: {{value: /twice}}}}], filters: [{ALL}, {ALL}], backendRefs: [{{name: taker, port: PORT}}]}}
",
        set("X-Before", "yes"),
        set("X-After", "yes"),
        set("X-Before", "backend"),
    ));
    let requests = || {
        let more = ["route_name=\"main-", "backend_name=\"taker\""];
        let taken = scene.stage.sum(0, "outbound_http_route_backend_requests_total", &more);
        let copied = scene.stage.sum(0, "outbound_http_route_backend_requests_total", &["backend_name=\"shadow\""]);
        (taken, copied, scene.stage.sum(0, "outbound_http_route_request_statuses_total", &more[..1]))
    };
    let before = requests();
    let mut count = 0;
    let mut ask = |path: &str, more: &[&str], copies: usize| -> (Arrived, Vec<Arrived>) {
        let is_http2 = more.contains(&"http2");
        let more: Vec<&str> = more.iter().copied().filter(|word| *word != "http2").collect();
        let get: fn(&Stage, &str, &[&str]) -> Answer = if is_http2 { Stage::get_http2 } else { Stage::get };
        assert_eq!(get(&scene.stage, path, &more).status, 200, "{path} {more:?}");
        count += 1;
        let what = format!("{path} {more:?} {is_http2}");
        let own = scene.taker.next(&what);
        (own, (0..copies).map(|_| scene.shadow.next(&what)).collect())
    };
    let (upload, body) = scene.file(1_500_000);
    let (chunked, data) = (["-H", "transfer-encoding: chunked"], ["--data-binary", upload.as_str()]);
    // More than once: to either node.
    for round in 0..4 {
        for (more, length) in [
            (&["http2"][..], 0),
            (&[], 0),
            (&data, body.len()),
            (&[&data[..], &["http2"]].concat(), body.len()),
            (&[&data[..], &chunked].concat(), body.len()),
        ] {
            let (own, copies) = ask("/copied/to?the=mirror", &[more, &["-H", "X-Own: mine"]].concat(), 1);
            let copy = &copies[0];
            assert!(own.header("x-after") == "yes" && own.header("x-before") == "yes", "{own:?}");
            assert!(copy.header("x-after").is_empty() && copy.header("x-before") == "yes", "{copy:?}");
            for arrived in [&own, copy] {
                assert_eq!((&*arrived.target, arrived.header("host")), ("/inner/to?the=mirror", "inner.example"));
                assert_eq!((&*arrived.method, arrived.header("x-own")), (&*own.method, "mine"));
                let arrived = arrived.body.as_ref().unwrap();
                assert!(*arrived == body[..length], "{round} {more:?}: {} of {length}", arrived.len());
            }
        }
    }
    let (own, copies) = ask("/backend", &data, 1);
    assert!(own.target == "/backend" && copies[0].header("x-before") == "backend", "{:?}", copies[0].headers);
    assert_eq!(ask("/twice", &data, 2).1[1].body.as_ref(), Some(&body));
    // What leaves HTTP is not copied: the next copy is that of the next request.
    ask("/twice/upgrade", &["-H", "connection: upgrade", "-H", "upgrade: other"], 0);
    let (_own, copies) = ask("/twice/after", &[], 2);
    assert_eq!([&*copies[0].target, &*copies[1].target], ["/twice/after"; 2]);
    let after = requests();
    assert_eq!((after.0 - before.0, after.1, after.2 - before.2), (f64::from(count), 0.0, f64::from(count)));
    wait::until("all are counted", PATIENCE, || (scene.ended("sent") == f64::from(count + 1)).then_some(()));
    for how in ["failed", "late", "behind", "cancelled", "dropped"] {
        assert_eq!(scene.ended(how), 0.0, "{how}");
    }
}

/// By percent and by fraction; nothing of nothing. 2,000 requests each. Seen to fail with a share that is taken for all.
#[test]
fn shares_are_copied() {
    let scene = Scene::start(Manner::Answers);
    let rule = |path: &str, share: &str| {
        format!(
            "  - {{matches: [{{path: {{value: {path}}}}}], filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: shadow, port: PORT}}, {share}}}}}]}}\n"
        )
    };
    let rules = [
        rule("/tenth", "percent: 10"),
        rule("/quarter", "fraction: {numerator: 1, denominator: 4}"),
        rule("/none", "percent: 0"),
        rule("/all", "percent: 100"),
    ];
    scene.route(&rules.concat());
    // Four standard deviations of binomial distributions: 54 and 78.
    for (path, expected) in [("/tenth", 146..=254), ("/quarter", 422..=578), ("/none", 0..=0), ("/all", 2_000..=2_000)]
    {
        let before = scene.ended("sent");
        let url = format!("http://{}:{HTTP1}{path}/[1-2000]", scene.stage.web);
        let said = scene.stage.client.curl(&["--silent", "--max-time", "60", &url]).stdout;
        assert_eq!(String::from_utf8_lossy(&said).matches("server=").count(), 2_000, "{path}");
        wait::until(&format!("enough of {path}"), PATIENCE, || {
            (scene.ended("sent") - before >= f64::from(*expected.start())).then_some(())
        });
        // This one ends after all those before it were begun.
        let copied = scene.ended("sent") - before + scene.ended("dropped");
        assert!(copied <= f64::from(*expected.end()), "{path}: {copied}");
    }
    assert_eq!(scene.ended("dropped"), 0.0);
}

/// A mirror that is not there, or says nothing, or never stops, or reads nothing: requests are answered all the same, with bodies larger than anything between
/// would hold. Seen to fail with a body that waits for a copy that is half its bound behind.
#[test]
fn a_mirror_is_not_felt() {
    const LARGE: usize = 64 << 20;
    for (manner, how) in [(Manner::Deaf, "behind"), (Manner::Mute, "late"), (Manner::Endless, "sent")] {
        let scene = Scene::start(manner);
        scene.route(&format!("  - {{matches: [{{path: {{value: /copied}}}}], filters: [{ALL}], backendRefs: [{{name: taker, port: PORT}}]}}\n"));
        let (upload, body) = scene.file(if manner == Manner::Deaf { LARGE } else { 100_000 });
        for get in [Stage::get, Stage::get_http2] {
            let answer = get(&scene.stage, "/copied", &["--max-time", "60", "--data-binary", &upload]);
            assert_eq!(answer.status, 200, "{manner:?}");
            // Nobody has waited for a copy.
            assert_eq!(scene.ended("late") + scene.ended("sent"), 0.0, "{manner:?}");
            let taken = scene.taker.next("the request").body;
            assert!(taken.as_ref() == Some(&body), "{manner:?}: {:?}", taken.map(|taken| taken.len()));
            assert_eq!(get(&scene.stage, "/copied", &[]).status, 200);
            scene.taker.next("the other request");
        }
        wait::until(&format!("{manner:?} is counted"), PATIENCE, || (scene.ended(how) >= 2.0).then_some(()));
    }
}

/// A mirror that has begun its answers and then reads no more: what nobody waits for is broken off as soon as it can be, and requests to the same
/// endpoint have connections of their own. Seen to fail with connections for both (for copies that are left alone once they are whole: `tee.rs`).
#[test]
fn a_mirror_that_reads_no_more_keeps_nothing() {
    const STINGY: u16 = SHADOW + 2;
    let mut scene = Scene::start(Manner::Answers);
    // On the client's node: nothing between that would take more than it lets in.
    let stingy = Stingy::start(&scene.stage.servers[1], STINGY);
    let address = scene.stage.mesh.service(&ServiceOptions::new("stingy", HTTP2, STINGY), &[&scene.stage.servers[1]]);
    let mirror = ALL.replace("shadow", "stingy").replace("PORT", &HTTP2.to_string());
    scene.route(&format!(
        "  - {{matches: [{{path: {{value: /copied}}}}], filters: [{mirror}], backendRefs: [{{name: taker, port: PORT}}]}}\n"
    ));
    let (upload, body) = scene.file(1 << 20);
    for _ in 0..3 {
        assert_eq!(scene.stage.get_http2("/copied", &["--data-binary", &upload]).status, 200);
        assert!(scene.taker.next("the request").body.as_ref() == Some(&body));
    }
    let late = || scene.stage.sum(0, "weir_mirrored_requests_total", &["backend_name=\"stingy\"", "result=\"late\""]);
    // The window of the copies' connection is full by now; of what is sent here less than a window.
    let url = format!("http://{address}:{HTTP2}/own");
    let own = ["--http2-prior-knowledge", "--max-time", "2", "--data-binary", "little"];
    ask(&scene.stage.client, &url, &own);
    assert_eq!((stingy.next("a request of its own"), late()), (Half::Whole, 0.0));
    wait::until("they are late", PATIENCE, || (late() == 3.0).then_some(()));
    assert_eq!(stingy.ended(), None);
    stingy.open();
    for _ in 0..3 {
        assert_eq!(stingy.next("a copy"), Half::Reset);
    }
}

/// With nobody at its port, without an endpoint, and before its Service is there at all; as soon as it is, it gets its copies. Seen to fail with an
/// index that does not lead from a mirror's Service to the parent, and with a far proxy's 502 taken for an answer.
#[test]
fn a_mirror_that_is_missing_is_not_felt() {
    let mut stage = Stage::start();
    let mirror = |name: &str| ALL.replace("shadow", name);
    let pod = mirror("shadow").replace("{name", "{kind: Pod, name");
    let filters = [mirror("shadow"), mirror("empty"), mirror("deaf"), pod].join(", ");
    stage.route(&format!("  rules: [{{filters: [{filters}], backendRefs: [{{name: v1, port: PORT}}]}}]"));
    stage.mesh.service(&ServiceOptions::new("empty", HTTP1, HTTP1), &[]);
    stage.mesh.service(&ServiceOptions::new("deaf", HTTP1, SHADOW + 1), &[&stage.servers[0], &stage.servers[1]]);
    let of = |stage: &Stage, name: &str| {
        let backend = format!("backend_name=\"{name}\"");
        stage.sum(0, "weir_mirrored_requests_total", &[&backend, "result=\"failed\""])
    };
    for name in ["empty", "deaf"] {
        wait::until(name, PATIENCE, || {
            assert_eq!(stage.get("/", &[]).who(), "v1");
            (of(&stage, name) >= 3.0).then_some(())
        });
    }
    assert_eq!(stage.sum(0, "weir_mirrored_requests_total", &["backend_name=\"shadow\""]), 0.0);
    let shadow = Recorder::start(&[(&stage.servers[1], SHADOW)], Manner::Answers);
    stage.mesh.service(&ServiceOptions::new("shadow", HTTP1, SHADOW), &[&stage.servers[1]]);
    wait::until("a copy", PATIENCE, || {
        assert_eq!(stage.get("/there", &[]).who(), "v1");
        shadow.all().pop().filter(|copy| copy.target == "/there")
    });
    stage.mesh.remove_manifest("service-demo-shadow");
    wait::until("no copy any more", PATIENCE, || {
        let before = ended(&stage, "sent");
        assert_eq!((0..5).map(|_| stage.get("/", &[]).who()).collect::<String>(), "v1v1v1v1v1");
        (ended(&stage, "sent") == before && shadow.all().is_empty()).then_some(())
    });
}

/// Copies of requests that nobody answers are bounded; those beyond the bound are counted, and felt as little as the others. Seen to fail
/// without `MIRRORS_OF_ONE`.
#[test]
fn copies_under_way_have_a_bound() {
    let scene = Scene::start(Manner::Mute);
    scene.route(&format!("  - {{matches: [{{path: {{value: /copied}}}}], filters: [{ALL}]}}\n"));
    let url = format!("http://{}:{HTTP1}/copied/[1-300]", scene.stage.web);
    let said = scene.stage.client.curl(&["--silent", "--max-time", "60", &url]).stdout;
    assert_eq!(String::from_utf8_lossy(&said).matches("server=").count(), 300);
    let dropped = scene.ended("dropped");
    assert!((1.0..=172.0).contains(&dropped), "{dropped}");
    wait::until("the others are late", PATIENCE, || (scene.ended("late") >= 128.0).then_some(()));
}

/// A request that is sent again is copied once. Seen to fail with `filter` called again.
#[test]
fn a_request_that_is_sent_again_is_copied_once() {
    let mut scene = Scene::start(Manner::Answers);
    scene.stage.mesh.service(&ServiceOptions::new("turns", HTTP1, SHADOW + 1), &[&scene.stage.servers[0]]);
    scene.route(&format!(
        "  - {{matches: [{{path: {{value: /again}}}}], retry: {{codes: [503], attempts: 3}}, filters: [{ALL}], backendRefs: [{{name: turns, port: PORT}}]}}\n"
    ));
    let (upload, body) = scene.file(50_000);
    let listener = listen(&scene.stage.servers[0], SHADOW + 1);
    let running = play(listener, vec![Turn::Refuse, Turn::Leave, Turn::Take, Turn::Take]);
    for path in ["/again/once", "/again/after"] {
        assert_eq!(scene.stage.get(path, &["--data-binary", &upload]).status, 200);
        let copy = scene.shadow.next(path);
        assert!(copy.target == path && copy.body.as_ref() == Some(&body), "{} {:?}", copy.target, copy.headers);
    }
    assert_eq!(running.join().unwrap(), vec![body; 4]);
    wait::until("both are counted", PATIENCE, || (scene.ended("sent") == 2.0).then_some(()));
    assert_eq!(scene.shadow.all().len(), 0);
}

/// What the client breaks off, its copy breaks off too; the next one is whole. Seen to fail with what broke off ended in order: a body in chunks is
/// then taken for whole.
#[test]
fn a_request_that_breaks_off_is_no_whole_copy() {
    let scene = Scene::start(Manner::Answers);
    scene.route(&format!("  - {{matches: [{{path: {{value: /copied}}}}], filters: [{ALL}], backendRefs: [{{name: taker, port: PORT}}]}}\n"));
    for head in ["content-length: 200000", "transfer-encoding: chunked"] {
        let begun = (scene.taker.begun(), scene.shadow.begun());
        let address = (scene.stage.web.as_str(), HTTP1);
        let mut tcp = scene.stage.client.place.netns.enter(|| TcpStream::connect(address)).unwrap();
        write!(tcp, "POST /copied HTTP/1.1\r\nhost: web\r\n{head}\r\n\r\n").unwrap();
        write!(tcp, "186a0\r\n{}", "a".repeat(100_000)).unwrap();
        wait::until("both have begun", PATIENCE, || {
            (scene.taker.begun() > begun.0 && scene.shadow.begun() > begun.1).then_some(())
        });
        drop(tcp);
        let copy = scene.shadow.next("the copy");
        assert!(copy.target == "/copied" && copy.body.is_none(), "{:?}", copy.body.map(|body| body.len()));
        assert!(scene.taker.next("the request").body.is_none());
    }
    wait::until("both are counted", PATIENCE, || (scene.ended("cancelled") == 2.0).then_some(()));
    assert_eq!(scene.stage.get("/copied", &["--data-binary", "all"]).status, 200);
    assert_eq!(scene.shadow.next("the copy").body.as_deref(), Some(&b"all"[..]));
}

/// Calls of gRPC, to servers that fail every other one: the client hears of those of its own server alone. Seen to fail with calls
/// that are not copied.
#[test]
fn calls_are_copied() {
    let mut stage = Stage::start();
    let _servers = [0, 1].map(|index| flaky::serve_at(&stage, index));
    let calls = stage.mesh.service(&ServiceOptions::new("calls", GRPC, GRPC), &[&stage.servers[0]]);
    stage.mesh.service(&ServiceOptions::new("shadow", GRPC, GRPC), &[&stage.servers[1]]);
    let mirror = ALL.replace("PORT", &GRPC.to_string());
    stage.mesh.manifest(
        "calls-route",
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: calls, namespace: {NAMESPACE}}}\n\
             spec: {{parentRefs: [{{group: \"\", kind: Service, name: calls}}], rules: [{{filters: [{mirror}]}}]}}\n"
        ),
    );
    let target = format!("{calls}:{GRPC}");
    let count = |how: &str| {
        let result = format!("result=\"{how}\"");
        stage.sum(0, "weir_mirrored_requests_total", &["backend_name=\"shadow\"", "route_kind=\"GRPCRoute\"", &result])
    };
    wait::until("the route is in force", PATIENCE, || {
        flaky::call(&stage, &target);
        (count("sent") > 0.0).then_some(())
    });
    let arrived = || stage.sum(0, "response_total", &["direction=\"inbound\"", "pod=\"v2\"", "grpc_status="]);
    let before = wait::until("all are there", PATIENCE, || {
        let (sent, arrived) = (count("sent"), arrived());
        (sent == arrived).then_some(sent)
    });
    assert_eq!(flaky::call(&stage, &target), Some(10));
    wait::until("each was copied", PATIENCE, || {
        (count("sent") - before == 20.0 && arrived() == before + 20.0).then_some(())
    });
    assert_eq!(count("failed") + count("late") + count("behind") + count("dropped"), 0.0);
}
