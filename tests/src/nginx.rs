//! nginx as the application of a pod, and as a reverse proxy to compare with. Must never read the machine's configuration.

use std::{fs, path::Path, time::Duration};

use crate::{daemon::Daemon, mesh::Pod, netns::Netns, wait};

/// Starts nginx in a pod: `/name`, also below a number, answers with the pod's name on port 8080 (HTTP/1) and 8081 (HTTP/2 in clear).
pub fn start(pod: &Pod, folder: &Path, logs: &Path) -> Daemon {
    let servers = format!(
        "server {{ listen [::]:8080 ipv6only=off reuseport; {locations} }}\n\
         server {{ listen [::]:8081 ipv6only=off http2; {locations} }}\n",
        locations = locations(&pod.name)
    );
    run(&pod.place.netns, &pod.name, &servers, folder, logs)
}

fn locations(name: &str) -> String {
    format!(
        "location = /name {{ default_type text/plain; return 200 \"{name}\\n\"; }}\n\
         location ~ ^/[0-9]+/name$ {{ default_type text/plain; return 200 \"{name}\\n\"; }}\n\
         location = /address {{ default_type text/plain; return 200 \"$remote_addr\\n\"; }}\n\
         location = /error {{ default_type text/plain; return 503 \"no\\n\"; }}\n\
         location / {{ root {{FOLDER}}/files; client_max_body_size 0; }}\n"
    )
}

/// Starts nginx with these `server` blocks, in which `{FOLDER}` is replaced.
///
/// # Panics
/// When it does not come up within ten seconds.
pub fn run(netns: &Netns, name: &str, servers: &str, folder: &Path, logs: &Path) -> Daemon {
    fs::create_dir_all(folder.join("files")).expect("a folder");
    let shown = folder.display();
    let servers = servers.replace("{FOLDER}", &shown.to_string());
    let text = format!(
        "daemon off; master_process off; pid {shown}/nginx.pid; error_log stderr warn; worker_rlimit_nofile 20000;\n\
         events {{ worker_connections 10000; }}\n\
         http {{ access_log off; keepalive_requests 10000000; keepalive_timeout 3600s; server_tokens off; tcp_nodelay on;\n\
         client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy; fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         default_type text/plain;\n{servers} }}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).expect("nginx.conf");
    let mut command = netns.command("nginx");
    command.arg("-c").arg(&file);
    let daemon = Daemon::start(&format!("{name}-nginx"), command, logs);
    let pid = folder.join("nginx.pid");
    wait::until("nginx is up", Duration::from_secs(10), || pid.exists().then_some(()));
    daemon
}
