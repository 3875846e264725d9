//! ServiceProfiles and TrafficSplits, which users bring from Linkerd, from YAML to bytes.

use std::time::Duration;

use weir_tests::{
    mesh::{NAMESPACE, PodOptions},
    wait,
};

use crate::stage::{HTTP1, HTTP2, PATIENCE, Stage, ask, service};

/// A profile of a Service in `demo`, written in a namespace.
fn write(stage: &Stage, service: &str, namespace: &str, spec: &str) {
    let text = format!(
        "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {{name: {service}.{NAMESPACE}.svc.cluster.local, namespace: {namespace}}}\nspec:\n{spec}\n"
    );
    stage.mesh.manifest(&format!("profile-{namespace}-{service}"), &text);
}

/// Of `web`, in force for its own namespace's clients.
fn profile(stage: &Stage, spec: &str) {
    write(stage, "web", NAMESPACE, spec);
    knows(stage, &format!("ServiceProfile {NAMESPACE}/web.{NAMESPACE}.svc.cluster.local"));
}

/// Waits until the client's node knows it, on both ports of `web`.
fn knows(stage: &Stage, object: &str) {
    wait::until(&format!("{object} is in force"), PATIENCE, || {
        stage.get("/", &[]);
        stage.get_http2("/", &[]);
        (stage.mesh.admin(0, "/config").matches(object).count() == 2).then_some(())
    });
}

/// The first route whose condition holds counts, stands instead of HTTPRoutes, and is what its requests are counted by. `/flaky` fails at `v2`
/// alone. Seen to fail without `classes` in `Goal`, and where `InForce` puts no route aside.
#[test]
fn the_first_route_that_holds_says_what_becomes_of_a_request() {
    let stage = Stage::start();
    stage.route("  rules: [{matches: [{path: {value: /none}}]}]");
    assert_eq!(stage.get("/", &[]).status, 404);
    profile(
        &stage,
        r#"  routes:
  - {name: GET flaky, isRetryable: true, condition: {all: [{method: GET}, {pathRegex: "/flaky/.*"}]}}
  - {name: late, timeout: 300ms, condition: {pathRegex: "/late|/tardy"}}
  - name: down
    condition: {pathRegex: "/down.*", not: {pathRegex: "/down/really"}}
    responseClasses: [{condition: {status: {min: 503, max: 503}}, isFailure: false}]
  - name: bad
    condition: {pathRegex: "/bad"}
    responseClasses: [{condition: {any: [{status: {min: 200, max: 299}}, {status: {min: 404, max: 404}}]}, isFailure: true}]
  - {name: never, condition: {pathRegex: "/flaky/.*"}, timeout: 1ms}"#,
    );
    for get in [Stage::get, Stage::get_http2] {
        assert_eq!(get(&stage, "/", &[]).status, 200, "what falls under no route goes to the Service");
        assert!((0..10).all(|_| get(&stage, "/flaky/a", &[]).status == 200));
        let late = get(&stage, "/late", &[]);
        assert_eq!(late.status, 504);
        assert!(late.headers.contains_key("l5d-proxy-error"), "{late:?}");
        assert_eq!(get(&stage, "/down/x", &[]).status, 503);
        assert_eq!(get(&stage, "/down/really", &[]).status, 503);
        assert_eq!(get(&stage, "/bad", &[]).status, 200);
    }
    let of_route = |name: &str| {
        let route = format!("rt_route=\"{name}\"");
        let labels = ["route_group=\"linkerd.io\"", "route_kind=\"ServiceProfile\"", &route];
        stage.sum(0, "outbound_http_route_request_statuses_total", &labels)
    };
    wait::until("each route has its requests", PATIENCE, || {
        let names = ["GET flaky", "late", "down", "bad", "never"];
        (names.map(of_route) == [20.0, 2.0, 2.0, 2.0, 0.0] && of_route("[DEFAULT]") >= 4.0).then_some(())
    });
    let counted = |status: &str, class: &str| {
        let labels =
            ["direction=\"outbound\"", &format!("status_code=\"{status}\""), &format!("classification=\"{class}\"")];
        stage.sum(0, "response_total", &labels)
    };
    assert_eq!([counted("503", "success"), counted("200", "failure")], [2.0, 2.0]);
    // Linkerd's classic families, as its own commands ask for them; one port of two.
    let dst = format!("dst=\"web.{NAMESPACE}.svc.cluster.local:{HTTP1}\"");
    let classic = |family: &str, route: &str, more: &str| {
        stage.sum(0, family, &["direction=\"outbound\"", &dst, &format!("rt_route=\"{route}\""), more])
    };
    let [good, bad] = ["success", "failure"].map(|class| format!("classification=\"{class}\""));
    let responses = |route: &str, more: &str| classic("route_response_total", route, more);
    assert_eq!([responses("GET flaky", &good), responses("GET flaky", &bad)], [10.0, 0.0]);
    assert_eq!([responses("down", &good), responses("bad", &bad), responses("late", &bad)], [1.0; 3]);
    assert_eq!(classic("route_request_total", "GET flaky", ""), 10.0);
    assert_eq!(classic("route_response_latency_ms_count", "GET flaky", ""), 10.0);
    let late = |bound: &str| classic("route_response_latency_ms_bucket", "late", &format!("le=\"{bound}\""));
    assert_eq!([late("200"), late("+Inf")], [0.0, 1.0]);
    // Each request that failed at first, if it met the flaky server, is one more attempt, and was sent again.
    let failed = classic("route_actual_response_total", "GET flaky", &bad);
    assert_eq!(classic("route_actual_response_total", "bad", &bad), 1.0);
    assert_eq!(classic("route_actual_response_total", "GET flaky", &good), 10.0);
    assert_eq!(classic("route_actual_request_total", "GET flaky", ""), 10.0 + failed);
    assert_eq!(classic("route_retryable_total", "GET flaky", "skipped=\"\""), failed);
    stage.mesh.remove_manifest(&format!("profile-{NAMESPACE}-web"));
    wait::until("the HTTPRoute is back", PATIENCE, || (stage.get("/", &[]).status == 404).then_some(()));
}

/// `dstOverrides` and TrafficSplits: shares of requests go to other Services, those of the client's own namespace first.
#[test]
fn shares_go_where_they_are_sent() {
    let mut stage = Stage::start();
    stage.mesh.manifest("namespace-other", "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n");
    let mut options = PodOptions::new("guest", 0);
    options.namespace = "other".to_owned();
    options.enabled = Some(true);
    let guest = stage.mesh.pod(&options);
    stage.mesh.wait_ready(&[&guest]);
    let overrides = |first: &str, second: &str| {
        format!(
            "  dstOverrides: [{{authority: \"v1.demo.svc.cluster.local:{HTTP1}\", weight: {first}}}, {{authority: v2.demo.svc.cluster.local, weight: {second}}}]"
        )
    };
    profile(&stage, &overrides("900m", "0.1"));
    let shares = stage.shares(4_000);
    // Four standard deviations of a binomial distribution are 76.
    assert!((324..476).contains(&shares["v2"]) && shares["v1"] + shares["v2"] == 4_000, "{shares:?}");
    let url = format!("http://{}:{HTTP1}/", stage.web);
    write(&stage, "web", "other", &overrides("0", "1"));
    wait::until("the client's namespace decides", PATIENCE, || {
        (0..20).all(|_| ask(&guest, &url, &[]).who() == "v2").then_some(())
    });
    assert!(stage.shares(100).contains_key("v1"), "for nobody else");

    stage.mesh.remove_manifest(&format!("profile-{NAMESPACE}-web"));
    stage.mesh.manifest(
        "split",
        "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {name: canary, namespace: demo}\n\
         spec: {service: web, backends: [{service: v1, weight: 10}, {service: v2, weight: 90}, {service: gone, weight: 50}]}\n",
    );
    knows(&stage, "TrafficSplit demo/canary");
    let shares = stage.shares(4_000);
    assert!((324..476).contains(&shares["v1"]) && shares["v1"] + shares["v2"] == 4_000, "{shares:?}");
}

/// What is retryable is sent again as often as the budget of the dialled Service's profile allows, wherever it goes. Seen to fail with the
/// budget of the Service that it goes to.
#[test]
fn one_budget_bounds_all_retries() {
    let mut stage = Stage::start();
    let frugal = service(&mut stage, "frugal", &[]);
    write(
        &stage,
        "frugal",
        NAMESPACE,
        "  routes: [{name: all, isRetryable: true, condition: {method: GET}}]\n  retryBudget: {retryRatio: 0.2, minRetriesPerSecond: 0, ttl: 10s}\n  \
         dstOverrides: [{authority: v1.demo.svc, weight: 1}, {authority: v2.demo.svc, weight: 1}]",
    );
    let attempts = || {
        let of = |name: &str| stage.sum(0, "request_total", &[&format!("dst_service=\"{name}\"")]);
        of("v1") + of("v2")
    };
    wait::until("the profile is in force", PATIENCE, || {
        ask(&stage.client, &format!("http://{frugal}:{HTTP1}/"), &[]);
        stage.mesh.admin(0, "/config").contains("ServiceProfile demo/frugal").then_some(())
    });
    let before = attempts();
    let url = format!("http://{frugal}:{HTTP1}/down/[1-200]");
    let mut all = stage.client.place.netns.command("timeout");
    let said = all.args(["60", "curl", "--silent", "-w", "%{http_code}\n", &url]).output().expect("curl").stdout;
    assert_eq!(String::from_utf8_lossy(&said).lines().filter(|line| *line == "503").count(), 200);
    let more = attempts() - before - 200.0;
    assert!((20.0..=45.0).contains(&more), "{more} retries of 200 requests");
}

/// A profile that cannot be followed changes nothing and is named; its last good version stays. Ports that it calls opaque are.
#[test]
fn a_profile_that_cannot_be_followed_changes_nothing() {
    let stage = Stage::start();
    let overrides = |more: &str| format!("  dstOverrides: [{{authority: v2.demo.svc, weight: 1}}]\n{more}");
    profile(&stage, &overrides(""));
    wait::until("v2 has all", PATIENCE, || (stage.shares(40).get("v2") == Some(&40)).then_some(()));
    write(&stage, "web", NAMESPACE, "  routes: [{name: a, condition: {pathRegex: \"(\"}}]");
    wait::until("the finding", Duration::from_secs(20), || {
        let output = stage.mesh.weir(&["policy", "svc/web", "-n", NAMESPACE]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).contains("is no regular expression").then_some(())
    });
    assert_eq!(stage.shares(40).get("v2"), Some(&40));
    write(&stage, "web", NAMESPACE, &overrides(&format!("  opaquePorts: [\"{HTTP2}\"]")));
    let requests = || stage.sum(0, "request_total", &["direction=\"outbound\""]);
    wait::until("no request is seen on the port", PATIENCE, || {
        let before = requests();
        let who = stage.get_http2("/", &[]).who();
        (requests() == before && who.starts_with('v')).then_some(())
    });
}

/// What clients of another namespace say is a failure, or late, is said for themselves alone: the endpoints are everybody's. Seen to fail with the
/// classes and limits of any route.
#[test]
fn what_others_call_a_failure_takes_nobodys_endpoints_out() {
    let mut stage = Stage::start();
    let annotations = [
        // Else who answered late is not asked for a while.
        ("weir.mesh/balancer", "round-robin"),
        ("balancer.linkerd.io/failure-accrual", "consecutive"),
        ("balancer.linkerd.io/failure-accrual-consecutive-max-failures", "2"),
        ("balancer.linkerd.io/failure-accrual-consecutive-min-penalty", "60s"),
        ("balancer.linkerd.io/failure-accrual-consecutive-max-penalty", "60s"),
    ];
    let judged = service(&mut stage, "judged", &annotations);
    let mut options = PodOptions::new("guest", 0);
    (options.namespace, options.enabled) = ("other".to_owned(), Some(true));
    stage.mesh.manifest("namespace-other", "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n");
    let guest = stage.mesh.pod(&options);
    stage.mesh.wait_ready(&[&guest]);
    let url = |path: &str| format!("http://{judged}:{HTTP1}{path}");
    write(
        &stage,
        "judged",
        "other",
        "  routes:\n  - {name: late, condition: {pathRegex: /late}, timeout: 100ms}\n  - {name: bad, condition: {method: GET}, responseClasses: [{condition: {status: {min: 200, max: 299}}, isFailure: true}]}",
    );
    wait::until("the guest's profile is in force", PATIENCE, || {
        (ask(&guest, &url("/late"), &[]).status == 504).then_some(())
    });
    for path in ["/late", "/"] {
        for _ in 0..8 {
            ask(&guest, &url(path), &[]);
        }
    }
    // Both endpoints answer: neither is out.
    let servers: std::collections::BTreeSet<String> =
        (0..40).map(|_| ask(&stage.client, &url("/"), &[]).who()).collect();
    assert_eq!(servers.into_iter().collect::<Vec<_>>(), ["v1", "v2"]);
    let stat = stage.mesh.weir_json(&["stat", "endpoints", "svc/judged", "--namespace", NAMESPACE]);
    let lines = stat.as_array().or_else(|| stat["endpoints"].as_array()).expect("endpoints");
    assert!(lines.len() == 2 && lines.iter().all(|line| line["nodes_out"] == 0), "{stat}");
}
