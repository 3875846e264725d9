//! `docs/measurements.md`. Must never hold a figure without command, commit and machine.

use std::{env, fs, process::Command, time::Duration};

use super::report::seconds;

/// The whole page.
pub(super) fn render(table: &str, programs: &[String], round: Duration, rounds: usize) -> String {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let passed = if arguments.is_empty() { String::new() } else { format!(" -- {}", arguments.join(" ")) };
    format!(
        "# Measurements\n\n\
         Written by `cargo xtask bench{passed}` (tests/src/bench.rs); do not edit.\n\n\
         - commit: {commit}\n- date: {date}\n- machine: {machine}\n- build: {build}\n- peers, load generators, kernel: {programs}\n\
         - {rounds} rounds of {round} for each subject of a scenario, the order reversed each round; median (least–greatest)\n\n\
         {table}\n{NOTES}",
        commit = commit(),
        date = said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        machine = machine(),
        build = build(),
        programs = programs.join(", "),
        round = seconds(round),
    )
}

const NOTES: &str = "\
## How to read it

- *CPU µs each*: user and system time of all processes of the subject (`/proc/PID/stat`), divided by requests, connections or MB (10^6 bytes). Weir: both proxies'
  supervisors and workers, both holders, control. Clients and origins are not counted; they run on the same cores, so rates and latencies are those of a busy machine.
- *× nginx*: against nginx as one plaintext hop in the same rounds; in parentheses the least and greatest ratio within one round. *at most* is the bar that the project set.
- The path crosses from one node (network namespace) to the other, except for *same node*. Peers stand in a pod of their own outside of the mesh, two workers or threads,
  with kept connections to the origin. The origin is nginx with one worker and answers of a few bytes. The same congestion control everywhere.
- Closed loops: wrk (HTTP/1.1), h2load (HTTP/2, prior knowledge), own threads (new connections). Open loop: own threads, latencies from the intended start.
- HTTP/2 and gRPC: nginx speaks HTTP/2 to an upstream only by `grpc_pass`, one stream at a time on each connection; HAProxy and nghttpx multiplex, therefore the second ratio.
  A gRPC call is a POST with `application/grpc`, one framed message, an answer of one message with trailers; origin and client are nghttpd and h2load.
- Bulk: nginx is its `stream` module, HAProxy `mode tcp`; HAProxy copies and does not splice here.
- Memory: the worker carries the traffic; its supervisor only restarts it. Idle connections are opened in a mesh that carried nothing before, the HTTP ones (which share a few pooled
  connections to node 2) stay open while the opaque ones come;
  each is used again after it was measured.
- Beside an attack: open loop of one pod while another pod of the same node does what the row says, through the same proxies to the same server. The attacker's own processor
  time is part of the machine's load.
- Routes: Services with these HTTPRoutes before the same server; every second rule is a prefix, the others whole paths, the load asks for the last prefix. Three times as many rounds;
  differences and ratios are those within one round. Instructions of both proxies, which no other load on the machine changes (`tests/tests/instructions.rs`): 1 rule 1.9 % more than
  no route; ready to retry 1.9 %, 10,000 rules and 100 regular expressions 1.4 % more than 1 rule.
- Endpoints in trouble: two of four are well, the third answers three of ten requests with 503, the fourth takes 200 ms; shares in this order. Open loop over 128 kept connections,
  latencies of all answers from the intended start. A client outside of the mesh keeps to the endpoint of each connection, as behind kube-proxy.
";

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    if changed.is_empty() { commit } else { format!("{commit} with changes") }
}

fn build() -> String {
    let folder = crate::mesh::binary("weir-node");
    let profile = folder.parent().and_then(|folder| folder.file_name()).map(|name| name.to_string_lossy().into_owned());
    format!("profile {}", profile.unwrap_or_default())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}
