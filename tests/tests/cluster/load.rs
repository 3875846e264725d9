//! Constant load from a shop's client: HTTP/1.1 over kept and new connections, gRPC, and one TCP stream that lives all the time.

use std::time::{Duration, Instant};

use weir_tests::{cluster::PATIENCE, wait};

use crate::shop::{ASK_ALL, Shop, figure};

/// The file at whose appearance all of them end, and when they do without it: a test that fails leaves them behind.
const UNTIL: &str = "! test -e /tmp/stop && test $(date +%s) -lt $last";
const LONGEST: u64 = 900;
/// Connections that are kept, and the pause between requests on each: 200 requests per second in all.
const KEPT: &str = "echo 'function delay() return 40 end' > /tmp/pace.lua
    wrk -t 1 -c 8 --timeout 10s -s /tmp/pace.lua -d 3600s http://web/ &
    while UNTIL; do sleep 0.2; done; kill -INT $!; wait $!";
/// One connection each, one after the other.
const NEW: &str = "while UNTIL; do curl -sS --fail --max-time 10 -o /dev/null http://web/ && echo done; done 2>&1";
/// The gRPC project's own soak of unary calls, some seconds on one channel, then on the next: it says how many failed.
const GRPC: &str = "while UNTIL; do echo a soak; grpc-interop-client -server_host grpc -server_port 80 -test_case rpc_soak \
    -soak_request_size 100 -soak_response_size 100 -soak_min_time_ms_between_rpcs 20 -soak_iterations 250 \
    -soak_per_iteration_max_acceptable_latency_ms 10000 -soak_overall_timeout_seconds 120 2>&1 | grep -v succeeded; done";
/// One connection, ten commands a second, each answered by a line. `ncat` ends when redis does, or after the last command.
const STREAM: &str = "begin=$(date +%s)
    { while UNTIL; do echo PING; sleep 0.1; done; echo PING; } | ncat redis 6379 2>&1
    echo lasted $(($(date +%s) - begin))";
/// An event of no length needs some load before and after.
const SHORTEST: Duration = Duration::from_secs(10);
/// What an event may still cost when the one who caused it takes it for over.
const AFTERMATH: Duration = Duration::from_secs(3);

// What must have been done at least, below, is a fifth of that: enough to have been there all the time on the busiest machine.

/// What runs, in the client's pod, writing into files there: it goes on whatever becomes of the API server and of `kubectl exec`.
pub(crate) struct Load<'a> {
    shop: &'a Shop,
    begin: Instant,
}

/// How long the TCP stream must live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// To the end.
    Lives,
    /// This many seconds.
    Seconds(u64),
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    kept: String,
    new: String,
    calls: String,
    stream: String,
    /// From the beginning until it was told to end.
    seconds: u64,
    /// What the proxies count as failed: said beside what the clients say.
    mesh: String,
}

impl<'a> Load<'a> {
    /// Speaks to each of them once: the node has asked for these destinations then.
    pub(crate) fn warm(shop: &Shop) {
        shop.client(&["sh", "-c", ASK_ALL]);
    }

    /// Begins; it goes on until [`Load::end`], so that whatever happens between happens under load.
    pub(crate) fn begin(shop: &'a Shop) -> Load<'a> {
        let mut whole = "rm -f /tmp/stop /tmp/*.done\n".to_owned();
        for (name, script) in [("kept", KEPT), ("new", NEW), ("calls", GRPC), ("stream", STREAM)] {
            let body = format!("last=$(($(date +%s) + {LONGEST}))\n{}", script.replace("UNTIL", UNTIL));
            whole.push_str(&format!(
                "cat > /tmp/{name}.sh <<'END'\n{body}\nEND\n\
                 (setsid sh -c 'sh /tmp/{name}.sh > /tmp/{name}.out 2>&1; touch /tmp/{name}.done') > /dev/null 2>&1 &\n"
            ));
        }
        shop.client(&["sh", "-c", &whole]);
        Load { shop, begin: Instant::now() }
    }

    /// Tells it to end and waits for that.
    pub(crate) fn end(self) -> Outcome {
        wait::until_instant((Instant::now() + AFTERMATH).max(self.begin + SHORTEST));
        let seconds = self.begin.elapsed().as_secs();
        self.shop.client(&["touch", "/tmp/stop"]);
        let text = |name: &str| {
            let script = format!("test -e /tmp/{name}.done && cat /tmp/{name}.out && echo THE END");
            wait::until(name, PATIENCE, || {
                let said = self.shop.try_client(&["sh", "-c", &script])?;
                said.trim_end().strip_suffix("THE END").map(str::to_owned)
            })
        };
        let (kept, new, calls, stream) = (text("kept"), text("new"), text("calls"), text("stream"));
        let mesh = self.shop.failures_counted();
        Outcome { kept, new, calls, stream, seconds, mesh }
    }
}

impl Outcome {
    /// Every request and call was answered, there were enough, and the stream lived.
    pub(crate) fn is_whole(&self, stream: Stream) {
        let (kept, new, calls) = (self.over_kept(0), self.over_new(0), self.calls_made(0));
        let (answers, lasted) = (self.answers(), self.lasted());
        let least = match stream {
            Stream::Lives => self.seconds,
            Stream::Seconds(seconds) => seconds.min(self.seconds),
        };
        // The pauses between commands take longer on a busy machine, the stream's life does not.
        assert!(lasted + 1 >= least && answers >= lasted * 4, "{lasted} s, {answers} answers: {}", self.stream);
        figure(
            "requests over kept connections, over one each, gRPC calls; failed: 0; answers on one TCP stream",
            format!("{kept}, {new}, {calls}; {answers}"),
        );
    }

    /// As [`Outcome::is_whole`], but requests that were in flight at one moment may have failed: at most one of each connection.
    pub(crate) fn lost_only_what_was_in_flight(&self) {
        let (kept, new, calls) = (self.over_kept(8), self.over_new(1), self.calls_made(1));
        figure("requests over kept connections, over one each, gRPC calls", format!("{kept}, {new}, {calls}"));
    }

    /// wrk counts an answer other than 2xx and a connection that ended under a request.
    fn over_kept(&self, failures: u64) -> u64 {
        let number = |line: &str, after: &str| -> u64 {
            let rest = line.split(after).nth(1).unwrap_or_default().trim_start_matches([' ', ':']);
            rest.split(|digit: char| !digit.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        let line = self.kept.lines().find(|line| line.contains(" requests in ")).unwrap_or_default();
        let count: u64 = line.trim().split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
        let line = self.kept.lines().find(|line| line.contains("Socket errors")).unwrap_or_default();
        let (refused, timed_out) = (number(line, "connect"), number(line, "timeout"));
        let failed: u64 = ["read", "write"].iter().map(|kind| number(line, kind)).sum::<u64>()
            + self
                .kept
                .lines()
                .filter_map(|line| line.split("Non-2xx or 3xx responses: ").nth(1)?.trim().parse::<u64>().ok())
                .sum::<u64>();
        let is_whole = failed <= failures && refused == 0 && timed_out == 0;
        assert!(count >= self.seconds * 40 && is_whole, "{}{}", self.kept, self.mesh);
        count
    }

    fn over_new(&self, failures: usize) -> usize {
        // Each with the number of those done before it: the first and the last moments have causes of their own.
        let mut done = 0;
        let mut complaints: Vec<(usize, &str)> = Vec::new();
        for line in self.new.lines() {
            if line == "done" {
                done += 1;
            } else {
                complaints.push((done, line));
            }
        }
        let refused = complaints.iter().any(|(_, line)| line.contains("refused") || line.contains("timed out"));
        let is_whole = complaints.len() <= failures && !refused;
        assert!(is_whole && done as u64 >= self.seconds * 3, "{done} done, then {complaints:?}\n{}", self.mesh);
        done
    }

    /// Each soak sums up at its end: `soak test successes: 250 / 250 iterations. Total failures: 0`.
    fn calls_made(&self, failures: u64) -> u64 {
        let number = |before: &str| -> Vec<u64> {
            let rest = self.calls.lines().filter_map(|line| line.split(before).nth(1));
            rest.filter_map(|rest| rest.trim_start().split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok())
                .collect()
        };
        let begun = self.calls.lines().filter(|line| *line == "a soak").count();
        let (made, failed) = (number("soak test successes: "), number("Total failures: "));
        let (count, all): (u64, bool) = (made.iter().sum(), made.len() == begun && failed.len() == begun);
        let failed: u64 = failed.iter().sum();
        assert!(all && failed <= failures && count >= self.seconds * 5, "{begun} soaks: {}\n{}", self.calls, self.mesh);
        count
    }

    /// Seconds from the stream's first command to its end.
    fn lasted(&self) -> u64 {
        let last = self.stream.lines().last().and_then(|line| line.strip_prefix("lasted ")?.parse().ok());
        last.unwrap_or_else(|| panic!("the stream never ended: {}", self.stream))
    }

    fn answers(&self) -> u64 {
        self.stream.lines().filter(|line| line.trim() == "+PONG").count() as u64
    }
}
