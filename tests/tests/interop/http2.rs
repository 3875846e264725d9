//! HTTP/2 with prior knowledge, declared and sniffed.

use weir_tests::nginx;

use crate::{
    http1::dav,
    stage::{DECLARED_HTTP2, HTTP2, OTHER, RAW, Stage, digest, noise},
};

/// Many streams on few connections, on a port that says HTTP/2 and on one that says nothing.
#[test]
fn streams_are_multiplexed_declared_and_sniffed() {
    let stage = Stage::with_nginx();
    for server in &stage.servers {
        for port in [HTTP2, DECLARED_HTTP2] {
            let url = server.url(port, "/name");
            let said = stage.client.run("h2load", &["-n", "3000", "-c", "3", "-m", "60", &url]);
            assert!(said.contains("3000 succeeded, 0 failed, 0 errored"), "{} {port}: {said}", server.way);
            let curl = ["--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", &url];
            let got = stage.client.curl(&curl);
            assert_eq!(String::from_utf8_lossy(&got.stdout), format!("{}\n2 200", server.pod.name), "{}", server.way);
        }
        let seen = stage.client.run("curl", &["-sS", "--http2-prior-knowledge", &server.url(HTTP2, "/address")]);
        assert_eq!(seen.trim().trim_start_matches("::ffff:"), stage.client.place.v4.to_string(), "{}", server.way);
    }
}

/// 50 MB up and down under flow control, alone and four at once on one connection.
#[test]
fn large_bodies_under_flow_control_arrive_to_the_byte() {
    let mut stage = Stage::new();
    let file = stage.folder("client").join("noise");
    noise(&file, 50);
    let (wanted, path) = (digest(&file), file.to_str().unwrap().to_owned());
    for index in 0..2 {
        let folder = stage.folder(&format!("dav-{index}"));
        let running = dav(&stage, &stage.servers[index].pod, &folder);
        stage.keep(running);
        let server = &stage.servers[index];
        let url = server.url(HTTP2, "/noise");
        let up = stage.client.curl(&["--max-time", "60", "--http2-prior-knowledge", "-T", &path, &url]);
        assert!(up.status.success(), "{}: {up:?}", server.way);
        assert_eq!(digest(&folder.join("files/noise")), wanted, "{}: upload", server.way);
        let down = stage.folder("client").join("down");
        let got = stage.client.curl(&[
            "--max-time",
            "60",
            "--http2-prior-knowledge",
            "--fail",
            "-o",
            down.to_str().unwrap(),
            &url,
        ]);
        assert!(got.status.success(), "{}: {got:?}", server.way);
        assert_eq!(digest(&down), wanted, "{}: download", server.way);
        let said = stage.client.run("h2load", &["-n", "8", "-c", "1", "-m", "8", &url]);
        assert!(said.contains("8 succeeded, 0 failed, 0 errored"), "{}: {said}", server.way);
        assert!(said.contains(&format!("({}) data", 8 * 50 * 1024 * 1024)), "{}: {said}", server.way);
    }
}

/// Trailers of nghttpd reach nghttp.
#[test]
fn trailers_pass() {
    let mut stage = Stage::new();
    let folder = stage.folder("files");
    std::fs::write(folder.join("file"), "body").unwrap();
    for index in 0..2 {
        let command = ["nghttpd", "--no-tls", "--trailer", "x-sum: 4711", "-d", folder.to_str().unwrap(), "9000"];
        let running = stage.start(&stage.servers[index].pod, "nghttpd", &command, RAW);
        stage.keep(running);
        let server = &stage.servers[index];
        let said = stage.client.run("nghttp", &["-v", "-H", "te: trailers", &server.url(RAW, "/file")]);
        assert!(said.contains("x-sum: 4711") && said.contains("body"), "{}: {said}", server.way);
        // With a body and trailers of its own, and padding.
        let data = folder.join("file");
        let arguments =
            ["-v", "-b", "16", "-d", data.to_str().unwrap(), "--trailer", "x-mine: 1", &server.url(RAW, "/file")];
        let said = stage.client.run("nghttp", &arguments);
        assert!(said.contains(":status: 200"), "{}: {said}", server.way);
    }
}

/// A server that sends GOAWAY every few requests loses none of them.
#[test]
fn a_server_that_goes_away_often_loses_no_request() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let pod = &stage.servers[index].pod;
        let servers = "server { listen [::]:8081 ipv6only=off http2; keepalive_requests 20; location / { return 200 \"fine\\n\"; } }";
        let folder = stage.folder(&format!("nginx-{index}"));
        let running = nginx::run(&pod.place.netns, &pod.name, servers, &folder, &stage.mesh.path("logs"));
        stage.keep(running);
        let server = &stage.servers[index];
        let said = stage.client.run("h2load", &["-n", "500", "-c", "2", "-m", "10", &server.url(HTTP2, "/")]);
        assert!(said.contains("500 succeeded, 0 failed, 0 errored"), "{}: {said}", server.way);
        assert!(said.contains("status codes: 500 2xx"), "{}: {said}", server.way);
    }
}

/// A stream that is given up does not disturb the others of its connection.
#[test]
fn a_stream_that_is_reset_leaves_the_others_alone() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let pod = &stage.servers[index].pod;
        let servers = "server { listen [::]:8081 ipv6only=off http2; location / { root {FOLDER}/files; } location /slow { alias {FOLDER}/files/noise; limit_rate 100k; } }";
        let folder = stage.folder(&format!("nginx-{index}"));
        let running = nginx::run(&pod.place.netns, &pod.name, servers, &folder, &stage.mesh.path("logs"));
        noise(&folder.join("files/noise"), 4);
        stage.keep(running);
        let server = &stage.servers[index];
        let (slow, fast, down) =
            (server.url(HTTP2, "/slow"), server.url(HTTP2, "/noise"), stage.folder("client").join("down"));
        std::thread::scope(|scope| {
            // Given up after a second, while others share the connection between the proxies.
            let given_up =
                || stage.client.curl(&["--http2-prior-knowledge", "--max-time", "1", "-o", "/dev/null", &slow]).status;
            let slow: Vec<_> = (0..4).map(|_| scope.spawn(given_up)).collect();
            for _round in 0..10 {
                let got =
                    stage.client.curl(&["--http2-prior-knowledge", "--fail", "-o", down.to_str().unwrap(), &fast]);
                assert!(got.status.success(), "{}: {got:?}", server.way);
                assert_eq!(digest(&down), digest(&folder.join("files/noise")), "{}", server.way);
            }
            // 28: curl's own time was over, and nothing else.
            assert!(slow.into_iter().all(|one| one.join().unwrap().code() == Some(28)), "{}", server.way);
        });
        let said = stage.client.run("h2load", &["-n", "100", "-c", "1", "-m", "10", &fast]);
        assert!(said.contains("100 succeeded, 0 failed"), "{}: {said}", server.way);
    }
}

/// Nobody listens, or something that is not HTTP/2 answers: 502 and the reason, on the stream only.
#[test]
fn errors_are_answers_on_the_stream() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let command = ["ncat", "--listen", "--keep-open", "--exec", "/bin/cat", "9001"];
        let running = stage.start(&stage.servers[index].pod, "ncat", &command, OTHER);
        stage.keep(running);
        let server = &stage.servers[index];
        for port in [RAW, OTHER] {
            let got = stage.client.curl(&["-i", "--http2-prior-knowledge", &server.url(port, "/")]);
            let said = String::from_utf8_lossy(&got.stdout).into_owned();
            assert!(said.starts_with("HTTP/2 502"), "{} {port}: {got:?}", server.way);
            assert!(said.contains("l5d-proxy-error: "), "{} {port}: {said}", server.way);
        }
    }
}
