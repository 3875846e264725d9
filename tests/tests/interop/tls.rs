//! TLS of the application's own: never opened, its server name counted.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use weir_tests::{mesh::PodOptions, netns::run, nginx, wait};

use crate::{
    stage::{Stage, TLS, dial},
    wire::{PATIENCE, Wire},
};

/// A certificate of the application's own for `name`, in `folder/NAME.pem` and `folder/NAME.key`.
fn certificate(folder: &Path, name: &str) {
    let subject = format!("/CN={name}");
    let extension = format!("subjectAltName=DNS:{name}");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &subject, "-addext", &extension]);
    openssl.arg("-keyout").arg(folder.join(format!("{name}.key"))).arg("-out").arg(folder.join(format!("{name}.pem")));
    run(&mut openssl);
}

/// What the client verifies is the application's own certificate, by HTTP/1 and HTTP/2 inside it.
#[test]
fn curl_verifies_nginx_own_certificate_through_the_mesh() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let name = format!("shop{index}.example");
        let folder = stage.folder(&format!("tls-{index}"));
        certificate(&folder, &name);
        let pod = &stage.servers[index].pod;
        let shown = folder.display();
        let servers = format!(
            "server {{ listen [::]:8443 ipv6only=off ssl http2; ssl_protocols TLSv1.3; ssl_certificate {shown}/{name}.pem; ssl_certificate_key {shown}/{name}.key;\n\
             location / {{ return 200 \"$ssl_server_name $ssl_protocol $server_protocol\\n\"; }} }}"
        );
        let running = nginx::run(&pod.place.netns, &pod.name, &servers, &folder, &stage.mesh.path("logs"));
        stage.keep(running);
        let server = &stage.servers[index];
        let (authority, resolve) = (folder.join(format!("{name}.pem")), format!("{name}:{TLS}:{}", server.address));
        for (flag, protocol) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
            let url = format!("https://{name}:{TLS}/");
            let got = stage.client.curl(&[flag, "--cacert", authority.to_str().unwrap(), "--resolve", &resolve, &url]);
            let said = String::from_utf8_lossy(&got.stdout);
            assert_eq!(said, format!("{name} TLSv1.3 {protocol}\n"), "{}: {got:?}", server.way);
        }
        let sni = format!("sni=\"{name}\"");
        let counted = stage.metric(0, "weir_tls_passed_total", &["direction=\"outbound\"", &sni]);
        assert!((counted - 2.0).abs() < 0.1, "{}: {counted}", server.way);
    }
}

/// openssl on both ends: session, application protocol and the very certificate are the application's.
#[test]
fn s_client_talks_to_s_server_through_the_mesh() {
    let mut stage = Stage::new();
    for index in 0..2 {
        let folder = stage.folder(&format!("tls-{index}"));
        certificate(&folder, "raw.example");
        let file = |end: &str| folder.join(format!("raw.example.{end}")).to_str().unwrap().to_owned();
        let (certificate, key) = (file("pem"), file("key"));
        let command = [
            "openssl",
            "s_server",
            "-accept",
            "8443",
            "-cert",
            &certificate,
            "-key",
            &key,
            "-alpn",
            "own/1",
            "-rev",
            "-quiet",
        ];
        let running = stage.start(&stage.servers[index].pod, "s_server", &command, TLS);
        stage.keep(running);
        let server = &stage.servers[index];
        for version in ["-tls1_2", "-tls1_3"] {
            let mut client = stage.client.command("timeout");
            client.args([
                "10",
                "openssl",
                "s_client",
                "-connect",
                &format!("{}:{TLS}", server.address),
                "-servername",
                "raw.example",
            ]);
            client.args(["-verify_return_error", "-CAfile", &certificate, "-alpn", "own/1", version]);
            let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            // Its input stays open until the answer is there: s_client ends with it.
            let mut input = client.stdin.take().unwrap();
            input.write_all(b"hello\n").unwrap();
            let lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
            let mut said = Vec::new();
            lines.take_while(|line| line != "olleh").for_each(|line| said.push(line));
            drop(input);
            assert!(client.wait().unwrap().success(), "{} {version}: {said:#?}", server.way);
            assert!(said.iter().any(|line| line == "ALPN protocol: own/1"), "{} {version}: {said:#?}", server.way);
            assert!(
                said.iter().any(|line| line.contains("Verify return code: 0 (ok)")),
                "{} {version}: {said:#?}",
                server.way
            );
        }
    }
}

/// A ClientHello that asks for `name`, and nothing behind it.
fn client_hello(name: &str) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    let entry = [&[0][..], &length(name.as_bytes()), name.as_bytes()].concat();
    let list = [length(&entry), entry].concat();
    let extension = [vec![0, 0], length(&list), list].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend([length(&extension), extension].concat());
    let message = [vec![1, 0], length(&body), body].concat();
    [vec![0x16, 3, 1], length(&message), message].concat()
}

/// A client that thinks before it sends its ClientHello, and then sends it in pieces: counted, and not a byte of it changed.
#[test]
fn a_late_client_hello_in_pieces_is_counted_and_untouched() {
    let mut stage = Stage::new();
    let outside = stage.mesh.pod(&PodOptions::new("outside", 1).enabled(false));
    for (server, name) in stage.servers.iter().zip(["late-far.example", "late-near.example"]) {
        let listener = server.listen(TLS);
        let hello = client_hello(name);
        for (pod, node, direction) in
            [(&stage.client, 0, "direction=\"outbound\""), (&outside, server.pod.place.node, "direction=\"inbound\"")]
        {
            let mut client = dial(pod, &format!("{}:{TLS}", server.pod.place.v4));
            assert!(client.is_silent_for(Duration::from_millis(100)), "nobody said anything");
            let (first, second) = hello.split_at(60);
            client.send(first);
            assert!(client.is_silent_for(Duration::from_millis(50)), "answered half a ClientHello");
            client.send(second);
            let sni = format!("sni=\"{name}\"");
            wait::until("the server name is counted", PATIENCE, || {
                (stage.metric(node, "weir_tls_passed_total", &[direction, &sni]) > 0.5).then_some(())
            });
            let counted = stage.metric(node, "weir_tls_passed_total", &[direction, &sni]);
            assert!(counted < 1.5, "{} {direction}: counted {counted} times", server.way);
            client.finish();
            // Of the connections that the silence opened, one carries it.
            let mut seen = Vec::new();
            wait::until("the ClientHello at the application", PATIENCE, || {
                let mut app = Wire::accept(&listener);
                seen = app.bytes();
                (!seen.is_empty()).then_some(())
            });
            assert_eq!(seen, hello, "{} {direction}", server.way);
        }
    }
}
