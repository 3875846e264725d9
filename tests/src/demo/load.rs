//! Clients that go on all the time, each a real program in its pod, run in rounds of some seconds. Must never saturate the machine: every one is bounded in rate.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::Deserialize;

/// Time between two looks at a running client.
const LOOK: Duration = Duration::from_millis(20);

/// What a round, or several, brought.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Counts {
    /// Requests or conversations that succeeded.
    pub(super) ok: u64,
    /// Those that did not.
    pub(super) failed: u64,
    /// Of the failed: connections refused.
    #[serde(default)]
    pub(super) refused: u64,
    /// Of the failed: connections broken while in use.
    #[serde(default)]
    pub(super) broken: u64,
    /// Of the failed: no answer in time.
    #[serde(default)]
    pub(super) timeout: u64,
    /// Median latency of the last round, in milliseconds.
    pub(super) p50_ms: Option<f64>,
    /// 99th percentile of the last round, in milliseconds.
    pub(super) p99_ms: Option<f64>,
}

/// Counts so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Rounds that ended.
    pub(super) rounds: u64,
    /// Their sum.
    pub(super) counts: Counts,
    /// What a client said when it failed last.
    pub(super) problem: Option<String>,
}

impl Tally {
    /// What came since an earlier tally; latencies are the later ones.
    #[must_use]
    pub(super) fn since(&self, earlier: &Tally) -> Counts {
        let Counts { ok, failed, refused, broken, timeout, p50_ms, p99_ms } = self.counts.clone();
        let before = &earlier.counts;
        Counts {
            ok: ok - before.ok,
            failed: failed - before.failed,
            refused: refused - before.refused,
            broken: broken - before.broken,
            timeout: timeout - before.timeout,
            p50_ms,
            p99_ms,
        }
    }

    fn add(&mut self, output: &Output, read: Reader) {
        self.rounds += 1;
        let shown = String::from_utf8_lossy(&output.stdout);
        let round = read(&shown).unwrap_or(Counts { failed: 1, ..Counts::default() });
        if round.failed > 0 {
            let said = String::from_utf8_lossy(&output.stderr);
            self.problem = said.lines().chain(shown.lines()).next().map(str::to_owned);
        }
        let sum = &mut self.counts;
        sum.ok += round.ok;
        sum.failed += round.failed;
        sum.refused += round.refused;
        sum.broken += round.broken;
        sum.timeout += round.timeout;
        sum.p50_ms = round.p50_ms.or(sum.p50_ms);
        sum.p99_ms = round.p99_ms.or(sum.p99_ms);
    }
}

/// Finds the counts in what a program printed.
pub(super) type Reader = fn(&str) -> Option<Counts>;

/// A client at work; ends on drop.
#[derive(Debug)]
pub(super) struct Load {
    /// Program and destination, for people.
    pub(super) name: String,
    tally: Arc<Mutex<Tally>>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Runs `command` again and again, with `pause` between.
    pub(super) fn start(name: &str, command: Command, read: Reader, pause: Duration) -> Load {
        let tally = Arc::new(Mutex::new(Tally::default()));
        // Nothing is ever sent: dropping the sender is the signal.
        let (stop, stopped) = sync_channel(1);
        let shared = Arc::clone(&tally);
        let work = move || {
            while let Some(output) = round(&command, &stopped) {
                locked(&shared).add(&output, read);
                if !waited(&stopped, pause) {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread");
        Load { name: name.to_owned(), tally, stop: Some(stop), thread: Some(thread) }
    }

    /// Counts so far.
    pub(super) fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed already.
            let _ended = thread.join();
        }
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

fn waited(stopped: &Receiver<()>, time: Duration) -> bool {
    matches!(stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
}

/// A command with the program, arguments and variables of another one.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    // Ctrl-C on the terminal is for the demo alone.
    copy.args(command.get_args()).envs(variables).process_group(0);
    copy
}

fn round(command: &Command, stopped: &Receiver<()>) -> Option<Output> {
    let mut command = again(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running(Some(command.spawn().expect("a client that the check has found")));
    loop {
        if matches!(child.0.as_mut()?.try_wait(), Ok(Some(_)) | Err(_)) {
            // Clients print some lines, far less than a pipe holds.
            return child.0.take()?.wait_with_output().ok();
        }
        if !waited(stopped, LOOK) {
            return None;
        }
    }
}

/// Ended when its round is given up.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// One JSON line: our own programs, and wrk with our script.
pub(super) fn read_json(text: &str) -> Option<Counts> {
    text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

/// `curl --write-out '%{http_code} %{time_total}\n'`, a line per request; 000 when there was no answer.
pub(super) fn read_curl(text: &str) -> Option<Counts> {
    let mut times = Vec::new();
    let mut failed = 0;
    for line in text.lines() {
        match line.split_once(' ') {
            Some((code, seconds)) if code.starts_with('2') => times.push(seconds.parse::<f64>().ok()? * 1000.0),
            _ => failed += 1,
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get((times.len().checked_sub(1)? * share) / 100).copied();
    let counts = Counts { ok: times.len() as u64, failed, p50_ms: at(50), p99_ms: at(99), ..Counts::default() };
    (counts.ok + counts.failed > 0).then_some(counts)
}

/// The line `requests: 300 total, 300 started, 300 done, 300 succeeded, 0 failed, 0 errored, 0 timeout` of h2load.
pub(super) fn read_h2load(text: &str) -> Option<Counts> {
    let line = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let number = |word: &str| line.split(", ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
    let latency = text.lines().find_map(|line| line.strip_prefix("time for request:"));
    // min, max, mean, sd: the mean is the nearest to a median that it prints.
    let mean = latency.and_then(|line| milliseconds(line.split_whitespace().nth(2)?));
    Some(Counts {
        ok: number("succeeded")?,
        failed: number("failed")?,
        timeout: number("timeout")?,
        p50_ms: mean,
        ..Counts::default()
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

/// Requests of one round of redis-benchmark.
pub(super) const REDIS_ROUND: u64 = 100;

/// `redis-benchmark --csv`: a line of titles and one of numbers, of which the fifth is p50 and the seventh p99.
pub(super) fn read_redis(text: &str) -> Option<Counts> {
    let line = text.lines().find(|line| line.starts_with('"') && !line.starts_with("\"test\""))?;
    let numbers: Vec<Option<f64>> = line.rsplit("\",\"").map(|cell| cell.trim_matches('"').parse().ok()).collect();
    // From the end, because the first cell is the command itself: max, p99, p95, p50.
    Some(Counts { ok: REDIS_ROUND, p50_ms: *numbers.get(3)?, p99_ms: *numbers.get(1)?, ..Counts::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_understood() {
        let curl = read_curl("200 0.001\n000 0.0\n204 0.003\n503 0.1\n").expect("counts");
        assert_eq!((curl.ok, curl.failed, curl.p50_ms), (2, 2, Some(1.0)));
        assert!(read_curl("").is_none());
        let h2load = read_h2load(
            "requests: 300 total, 300 started, 300 done, 299 succeeded, 1 failed, 1 errored, 0 timeout\n\
             time for request:      120us      4.95ms       500us       130us    97.33%\n",
        );
        let h2load = h2load.expect("counts");
        assert_eq!((h2load.ok, h2load.failed, h2load.p50_ms), (299, 1, Some(0.5)));
        let redis =
            read_redis("\"test\",\"rps\"\n\"SET a b\",\"9.0\",\"0.1\",\"0.05\",\"0.07\",\"0.2\",\"0.3\",\"0.4\"\n");
        let redis = redis.expect("counts");
        assert_eq!((redis.ok, redis.p50_ms, redis.p99_ms), (REDIS_ROUND, Some(0.07), Some(0.3)));
        let json = read_json("Running 1s\n{\"ok\":5,\"failed\":1,\"p50_ms\":1.5,\"p99_ms\":null}\n").expect("counts");
        assert_eq!((json.ok, json.failed, json.p99_ms), (5, 1, None));
    }
}
