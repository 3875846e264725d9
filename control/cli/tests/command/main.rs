//! The built `weir` against a real server of the mesh API over TLS: exit codes, forms and what people are told.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod kubernetes;
mod server;

use std::{process::Output, time::Duration};

use server::{Control, IDENTITY};

async fn weir(control: &Control, arguments: &str) -> Output {
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.env("WEIR_CONTROL", &control.url).env("WEIR_TRUST_ANCHORS", control.anchors.path());
    command.env("WEIR_TOKEN_FILE", control.token.path()).args(arguments).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(30), command.output()).await.unwrap().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn stat_and_edges() {
    let control = Control::start(IDENTITY).await;
    let stat = weir(&control, "stat deploy -n shop").await;
    assert!(stat.status.success(), "{stat:?}");
    let line: Vec<String> = out(&stat).lines().nth(1).unwrap().split_whitespace().map(str::to_owned).collect();
    assert_eq!(line[..6], ["web", "1/1", "90.00%", "1.0rps", "15ms", "20ms"], "{line:?}");
    assert!(!out(&stat).contains('\x1b'), "no colours into a pipe");
    assert!(err(&stat).contains("node late did not answer"), "{stat:?}");
    assert!(err(&stat).contains("replica c-2 of control did not answer (asleep)"), "{stat:?}");
    assert!(out(&weir(&control, "stat deploy -n shop --color always").await).contains("\x1b[31m90.00%"));
    assert_eq!(json(&weir(&control, "stat -A -o json -t 30s").await)[0]["rps"], 1.0);
    let edges = json(&weir(&control, "edges -n shop -o json").await);
    assert_eq!((&edges[0]["src"], &edges[0]["secured"]), (&"sa/cart".into(), &true.into()), "{edges}");
    let nothing = weir(&control, "stat -n empty").await;
    assert!(nothing.status.success() && out(&nothing).is_empty() && err(&nothing).contains("try -A"), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_stat_outbound() {
    let control = Control::start(IDENTITY).await;
    let words = |output: &Output, line: usize| -> Vec<String> {
        out(output).lines().nth(line).unwrap().split_whitespace().map(str::to_owned).collect()
    };
    let routes = weir(&control, "routes svc/web -n shop -o wide").await;
    assert!(routes.status.success(), "{routes:?}");
    assert_eq!(words(&routes, 1)[..6], ["[DEFAULT]", "web:80", "100.00%", "1.0rps", "90.90%", "1.1rps"]);
    for note in ["node late did not answer", "1 lines more", "60 requests fell under more routes"] {
        assert!(err(&routes).contains(note), "{note}: {routes:?}");
    }
    let sent = weir(&control, "stat-outbound deploy/web -n shop").await;
    assert_eq!(words(&sent, 1)[..4], ["web", "web:80", "[DEFAULT]", "100.00%"]);
    assert_eq!(words(&sent, 2)[1..4], ["────────►", "web:80", "90.90%"]);
    let nothing = weir(&control, "routes svc/none -n shop").await;
    assert!(nothing.status.success() && out(&nothing).is_empty() && err(&nothing).contains("try -A"), "{nothing:?}");
    assert_eq!(weir(&control, "routes deploy/web -n shop").await.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_endpoints() {
    let control = Control::start(IDENTITY).await;
    let identity = weir(&control, "identity pod/web-1 -n shop").await;
    assert!(out(&identity).contains(&format!("DNS:{IDENTITY}")), "{identity:?}");
    let absent = weir(&control, "identity nobody -n shop").await;
    assert_eq!(absent.status.code(), Some(1));
    assert!(err(&absent).contains("no meshed pod nobody"), "{absent:?}");
    let endpoints = weir(&control, "endpoints web.shop:80").await;
    assert!(out(&endpoints).contains("10.0.0.1"), "{endpoints:?}");
    let unknown = weir(&control, "endpoints absent.shop:80").await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("no service absent"), "control's words: {unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_and_policy() {
    let control = Control::start(IDENTITY).await;
    let explained = weir(&control, "explain deploy/cart svc/web:80 -n shop --path /x -H x:1").await;
    assert!(out(&explained).contains("100% is answered 404: no route"), "{explained:?}");
    assert!(err(&explained).contains("note: nobody is in the mesh"), "{explained:?}");
    let shown = json(&weir(&control, "explain ns/shop web.front:80 -o json").await);
    assert_eq!((&shown["service"]["namespace"], &shown["outcome"][0]["status"]), (&"front".into(), &404.into()));
    let policy = weir(&control, "policy svc/web -n shop --from front").await;
    assert!(out(&policy).contains("Service shop/web, for clients of namespace front"), "{policy:?}");
    assert!(out(&policy).contains("retry.limit"), "{policy:?}");
    let told = weir(&control, "diagnostics policy svc/web 80 -n shop").await;
    assert!(out(&told).contains("key: 10.0.0.1:80"), "{told:?}");
    assert!(out(&told).contains("protocol: DETECT"), "{told:?}");
    for wrong in
        ["explain svc/a svc/web", "explain deploy/a deploy/b", "policy web", "diagnostics policy svc/web:80 81"]
    {
        let refused = weir(&control, wrong).await;
        assert_eq!(refused.status.code(), Some(1), "{wrong}: {refused:?}");
        assert!(out(&refused).is_empty() && !err(&refused).is_empty(), "{wrong}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_levels() {
    let control = Control::start(IDENTITY).await;
    let shown = weir(&control, "log-level node-1 gone").await;
    assert_eq!(shown.status.code(), Some(1), "one is not known: {shown:?}");
    let rows: Vec<String> =
        out(&shown).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(rows, ["NODE LOG LEVEL PROBLEM", "node-1 info -", "gone - not connected"], "{shown:?}");
    let refused = weir(&control, "log-level node-1 --set debug").await;
    assert!(
        err(&refused).contains("may not update loglevels.weir.mesh"),
        "the right, not the mesh's token: {refused:?}"
    );
    let own = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(own.path(), "token\n").expect("a token");
    let set = format!("log-level node-1 --set debug --kubernetes-token-file {} -o json", own.path().display());
    let set = weir(&control, &set).await;
    assert_eq!(json(&set), serde_json::json!([{"node": "node-1", "filter": "debug", "problem": ""}]));
    assert_eq!(set.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_version() {
    let control = Control::start(IDENTITY).await;
    let check = weir(&control, "check").await;
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    assert!(out(&check).contains("√ control accepts the token"), "{check:?}");
    assert!(out(&check).contains("× all pods are captured\n    web-2 is not: restart it\n"), "{check:?}");
    assert_eq!(json(&weir(&control, "check -o json").await)["success"], false);
    let version = weir(&control, "version").await;
    assert!(
        out(&version).contains("Control version: 9.9.9") && out(&version).contains("9.9.8 (1 node)"),
        "{version:?}"
    );
    assert!(out(&weir(&control, "completions bash").await).contains("complete -F _weir"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_check() {
    let control = Control::start(IDENTITY).await;
    std::fs::write(control.token.path(), "wrong").unwrap();
    let refused = weir(&control, "stat").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("refused the token: no such token"), "{refused:?}");
    assert!(!err(&refused).contains("wrong"), "the token is not shown: {refused:?}");
    std::fs::write(control.token.path(), "").unwrap();
    assert!(err(&weir(&control, "stat").await).contains("token file"));

    let other = Control::start(IDENTITY).await;
    std::fs::copy(other.anchors.path(), control.anchors.path()).unwrap();
    std::fs::copy(other.token.path(), control.token.path()).unwrap();
    let foreign = weir(&control, "stat").await;
    assert!(err(&foreign).contains("not signed by the given trust anchors"), "{foreign:?}");
    assert_eq!(control.calls(), 1, "no call with a token to a server that is not control");

    let named = Control::start("other.ns.serviceaccount.identity.linkerd.cluster.local").await;
    let wrong = weir(&named, "check").await;
    assert_eq!(wrong.status.code(), Some(1));
    assert!(
        out(&wrong).contains("did not prove to be control") && out(&wrong).contains("--control-identity"),
        "{wrong:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_control() {
    let mut control = Control::start(IDENTITY).await;
    // A port that was free a moment ago and that nobody else asks for.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    control.url = format!("https://{free}");
    let gone = weir(&control, "stat").await;
    assert_eq!(gone.status.code(), Some(1));
    assert!(err(&gone).contains("cannot be reached") && err(&gone).contains("weir-control runs"), "{gone:?}");
    let version = weir(&control, "version").await;
    assert!(out(&version).contains("Control version: unavailable") && !version.status.success(), "{version:?}");
    assert!(weir(&control, "version --client").await.status.success());
    // Listens, but never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    control.url = format!("https://{}", silent.local_addr().unwrap());
    let slow = weir(&control, "stat --timeout 200ms").await;
    assert!(err(&slow).contains("no connection within 200ms"), "{slow:?}");
    control.url = "http://10.0.0.1:1".to_owned();
    assert!(err(&weir(&control, "stat").await).contains("plain text"));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["completions", "zsh"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdout(writer).spawn().unwrap();
    assert!(child.wait().unwrap().success());
}
