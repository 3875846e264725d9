//! The peers: nginx, HAProxy and nghttpx as one plaintext hop, and the origins behind all subjects.
//!
//! Must never give a peer less than its own manual advises: kept upstream connections, two workers, no logs.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use super::serve;
use crate::{daemon::Daemon, mesh::Pod, nginx, wait};

/// HTTP/1.1 of origins and peers.
pub(super) const HTTP1: u16 = 8080;
/// HTTP/2 in clear of origins and peers.
pub(super) const HTTP2: u16 = 8081;
/// gRPC in clear of origins and peers.
pub(super) const GRPC: u16 = 8082;
/// The method that the origin of gRPC answers; without the first slash.
pub(super) const GRPC_METHOD: &str = "bench.Greeter/SayHello.unary";
/// One framed message, as a greeter's request and answer: not compressed, 7 bytes, field 1 is `hello`.
pub(super) const GRPC_MESSAGE: &[u8] = b"\0\0\0\0\x07\x0a\x05hello";
/// Where distributions put nginx's TCP proxy.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
const PATIENCE: Duration = Duration::from_secs(10);

/// nginx with one worker and small answers, nghttpd that answers as a gRPC server does, and the opaque origins.
pub(super) fn origin(pod: &Pod, folder: &Path, logs: &Path) -> [Daemon; 2] {
    let location = "location / { return 200 \"hello\\n\"; }";
    let servers = format!(
        "http2_max_requests 100000000; http2_max_concurrent_streams 256;\n\
         server {{ listen {HTTP1}; {location} }}\nserver {{ listen {HTTP2} http2; {location} }}"
    );
    serve::start(&pod.place.netns);
    let nginx = nginx::run(&pod.place.netns, &pod.name, &servers, folder, logs);
    [nginx, grpc_origin(pod, folder, logs)]
}

/// nginx would answer before it has read the message and then reset the stream, which no gRPC server does.
fn grpc_origin(pod: &Pod, folder: &Path, logs: &Path) -> Daemon {
    let method = folder.join("grpc").join(GRPC_METHOD);
    fs::create_dir_all(method.parent().unwrap_or(folder)).expect("a folder");
    fs::write(method, GRPC_MESSAGE).expect("a file");
    let types = written(folder, "types", "application/grpc unary\n");
    let mut command = pod.command("nghttpd");
    command.args(["--no-tls", "--workers=1", "--max-concurrent-streams=256", "--trailer=grpc-status: 0"]);
    command.arg(format!("--mime-types-file={}", types.display()));
    command.arg(format!("--htdocs={}", folder.join("grpc").display())).arg(GRPC.to_string());
    started(pod, "nghttpd", command, logs, &[GRPC])
}

/// nginx in front of `origin`: HTTP/1.1, HTTP/2 (its `grpc_pass`), TCP.
pub(super) fn nginx_hop(pod: &Pod, origin: IpAddr, folder: &Path, logs: &Path) -> Daemon {
    let shown = folder.display();
    let (sink, echo) = (serve::SINK, serve::ECHO);
    let kept = "keepalive 128; keepalive_requests 100000000; keepalive_timeout 3600s;";
    let text = format!(
        "load_module {NGINX_STREAM};\n\
         daemon off; worker_processes 2; pid {shown}/nginx.pid; error_log stderr warn; worker_rlimit_nofile 20000;\n\
         events {{ worker_connections 8000; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; tcp_nodelay on; http2_max_requests 100000000;\n\
         client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy; fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         upstream http1 {{ server {origin}:{HTTP1}; {kept} }}\n\
         upstream http2 {{ server {origin}:{HTTP2}; {kept} }}\n\
         upstream grpc {{ server {origin}:{GRPC}; {kept} }}\n\
         server {{ listen {HTTP1} reuseport; location / {{ proxy_pass http://http1; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n\
         server {{ listen {HTTP2} http2 reuseport; location / {{ grpc_pass grpc://http2; }} }}\n\
         server {{ listen {GRPC} http2 reuseport; location / {{ grpc_pass grpc://grpc; }} }}\n\
         }}\n\
         stream {{ proxy_buffer_size 64k;\n\
         server {{ listen {sink} reuseport; proxy_pass {origin}:{sink}; }}\n\
         server {{ listen {echo} reuseport; proxy_pass {origin}:{echo}; }}\n}}\n"
    );
    let mut command = pod.command("nginx");
    command.arg("-c").arg(written(folder, "nginx.conf", &text));
    started(pod, "nginx", command, logs, &[HTTP1, HTTP2, GRPC, sink, echo])
}

/// HAProxy in front of `origin`, two threads.
pub(super) fn haproxy_hop(pod: &Pod, origin: IpAddr, folder: &Path, logs: &Path) -> Daemon {
    let (sink, echo) = (serve::SINK, serve::ECHO);
    let text = format!(
        "global\n nbthread 2\n maxconn 8000\n tune.bufsize 65536\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n http-reuse always\n\
         listen http1\n bind :{HTTP1}\n server origin {origin}:{HTTP1}\n\
         listen http2\n bind :{HTTP2} proto h2\n server origin {origin}:{HTTP2} proto h2\n\
         listen grpc\n bind :{GRPC} proto h2\n server origin {origin}:{GRPC} proto h2\n\
         listen sink\n mode tcp\n bind :{sink}\n server origin {origin}:{sink}\n\
         listen echo\n mode tcp\n bind :{echo}\n server origin {origin}:{echo}\n"
    );
    let mut command = pod.command("haproxy");
    command.arg("-db").arg("-f").arg(written(folder, "haproxy.cfg", &text));
    started(pod, "haproxy", command, logs, &[HTTP1, HTTP2, GRPC, sink, echo])
}

/// nghttpx in front of `origin`, two workers: HTTP/2 on both sides. Its routes go by path, not by port.
pub(super) fn nghttpx_hop(pod: &Pod, origin: IpAddr, folder: &Path, logs: &Path) -> Daemon {
    let mut command = pod.command("nghttpx");
    command.arg(format!("--conf={}", written(folder, "nghttpx.conf", "").display()));
    command.args(["--workers=2", "--accesslog-file=/dev/null", "--errorlog-file=/dev/null", "--no-ocsp"]);
    command.args([format!("--frontend=0.0.0.0,{HTTP2};no-tls"), format!("--frontend=0.0.0.0,{GRPC};no-tls")]);
    command.args([
        format!("--backend={origin},{HTTP2};;proto=h2"),
        format!("--backend={origin},{GRPC};/{GRPC_METHOD};proto=h2"),
    ]);
    started(pod, "nghttpx", command, logs, &[HTTP2, GRPC])
}

fn written(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    fs::create_dir_all(folder).expect("a folder");
    let file = folder.join(name);
    fs::write(&file, text).expect("a configuration file");
    file
}

fn started(pod: &Pod, name: &str, command: Command, logs: &Path, ports: &[u16]) -> Daemon {
    let mut daemon = Daemon::start(&format!("{}-{name}", pod.name), command, logs);
    for port in ports {
        let address = SocketAddr::new(pod.place.v4, *port);
        let open = || pod.place.netns.enter(|| TcpStream::connect(address).is_ok());
        wait::until(&format!("{name} listens on {port}"), PATIENCE, || {
            assert!(daemon.is_running(), "{name} ended:\n{}", daemon.log());
            open().then_some(())
        });
    }
    daemon
}

/// What the peers call themselves.
pub(super) fn versions() -> Vec<String> {
    let asked = [
        ("nginx", "-v"),
        ("haproxy", "-v"),
        ("nghttpx", "--version"),
        ("nghttpd", "--version"),
        ("wrk", "-v"),
        ("h2load", "--version"),
    ];
    let version = |(program, option): (&str, &str)| {
        let output = Command::new(program).arg(option).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next()?.to_owned();
        Some(line.split(" - ").next()?.split(" Copyright").next()?.trim().to_owned())
    };
    asked.into_iter().filter_map(version).collect()
}
