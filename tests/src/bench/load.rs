//! wrk and h2load, run in a pod, and what they say. Must never take a run with errors for a measurement.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use crate::netns::Netns;

/// What one round of one subject gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    /// Requests, connections or MB.
    pub(super) count: u64,
    /// Time that they took.
    pub(super) elapsed: Duration,
    /// Processor time of the subject's processes meanwhile.
    pub(super) cpu: Duration,
    /// Latencies at 50, 99 and 99.9 per cent, as far as they are known.
    pub(super) latency: [Option<Duration>; 3],
    /// What failed and is not counted.
    pub(super) errors: usize,
}

impl Sample {
    /// From single latencies.
    pub(super) fn of(mut latencies: Vec<Duration>, elapsed: Duration) -> Sample {
        latencies.sort_unstable();
        let at = |per_mille: usize| {
            latencies.get((latencies.len() * per_mille / 1000).min(latencies.len().saturating_sub(1))).copied()
        };
        Sample { count: latencies.len() as u64, elapsed, latency: [at(500), at(990), at(999)], ..Sample::default() }
    }

    /// Per second.
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    pub(super) fn rate(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time for one of what is counted, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    pub(super) fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count.max(1) as f64
    }

    /// For the terminal.
    pub(super) fn line(&self, unit: &str) -> String {
        let errors = if self.errors == 0 { String::new() } else { format!(", {} ERRORS", self.errors) };
        format!("{:>9.0} {unit}/s {:>8.1} µs CPU per {unit}{errors}", self.rate(), self.cost())
    }
}

/// Closed loop of HTTP/1.1 by wrk on one thread.
pub(super) fn wrk(
    netns: &Netns,
    address: SocketAddr,
    path: &str,
    connections: u32,
    length: Duration,
) -> Result<Sample, String> {
    let mut command = netns.command("wrk");
    command.args([
        "-t1",
        "--latency",
        &format!("-c{connections}"),
        &format!("-d{}s", length.as_secs()),
        &format!("http://{address}{path}"),
    ]);
    of_wrk(&output(command)?)
}

fn of_wrk(text: &str) -> Result<Sample, String> {
    if let Some(line) = text.lines().find(|line| line.contains("Socket errors:") || line.contains("Non-2xx")) {
        return Err(line.trim().to_owned());
    }
    let words = |wanted: &str| {
        text.lines().find(|line| line.contains(wanted)).map(|line| line.split_whitespace().collect::<Vec<_>>())
    };
    let sample = || {
        let summary = words(" requests in ")?;
        let count = summary.first()?.parse().ok()?;
        let elapsed = duration(summary.get(3)?.trim_end_matches(','))?;
        let at = |part: &str| words(part).and_then(|line| duration(line.get(1)?));
        Some(Sample { count, elapsed, latency: [at(" 50% "), at(" 99% "), None], ..Sample::default() })
    };
    sample().filter(|sample| sample.count > 0).ok_or_else(|| format!("wrk printed:\n{text}"))
}

/// `1.23ms`, as wrk and h2load write it.
fn duration(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match &text[number.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
}

/// Closed loop of HTTP/2 with prior knowledge by h2load: 4 connections, 16 streams each.
///
/// With `grpc` each request is a POST as gRPC's unary calls are: content type, `te`, one framed message.
pub(super) fn h2load(
    netns: &Netns,
    folder: &Path,
    address: SocketAddr,
    grpc: bool,
    length: Duration,
) -> Result<Sample, String> {
    let log = folder.join("h2load.log");
    let _absent = fs::remove_file(&log);
    let mut command = netns.command("h2load");
    command.args(["-t1", "-c4", "-m16", &format!("--duration={}", length.as_secs()), "--log-file"]).arg(&log);
    let mut path = "";
    if grpc {
        let message = folder.join("message");
        fs::write(&message, super::hops::GRPC_MESSAGE).map_err(|error| error.to_string())?;
        command.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data"]).arg(message);
        path = super::hops::GRPC_METHOD;
    }
    command.arg(format!("http://{address}/{path}"));
    let text = output(command)?;
    let mut sample = of_h2load(&text)?;
    let log = fs::read_to_string(&log).map_err(|error| error.to_string())?;
    let micros = log.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok());
    sample.latency = Sample::of(micros.map(Duration::from_micros).collect(), sample.elapsed).latency;
    Ok(sample)
}

fn of_h2load(text: &str) -> Result<Sample, String> {
    let sample = || {
        let elapsed = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
        let elapsed = duration(elapsed.split(',').next()?)?;
        let requests = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
        let number =
            |name: &str| requests.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse::<u64>().ok());
        let good = text
            .lines()
            .find_map(|line| line.strip_prefix("status codes: "))?
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()?;
        let count = number("succeeded")?;
        let clean = number("failed")? == 0 && number("errored")? == 0 && good >= count && count > 0;
        clean.then_some(Sample { count, elapsed, ..Sample::default() })
    };
    sample().ok_or_else(|| format!("h2load printed:\n{text}"))
}

fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 2s test @ http://x/\n  Latency Distribution\n     50%  812.00us\n     75%    0.91ms\n     90%    1.05ms\n     99%    1.97ms\n  38211 requests in 2.10s, 6.12MB read\nRequests/sec:  18195.20\n";
    const H2LOAD: &str = "finished in 2.00s, 30102.50 req/s, 1.20MB/s\nrequests: 60205 total, 60269 started, 60205 done, 60205 succeeded, 0 failed, 0 errored, 0 timeout\nstatus codes: 60205 2xx, 0 3xx, 0 4xx, 0 5xx\n";

    #[test]
    fn wrk_is_read() {
        let sample = of_wrk(WRK).unwrap();
        assert_eq!((sample.count, sample.elapsed), (38211, Duration::from_millis(2100)));
        assert_eq!(sample.latency, [Some(Duration::from_micros(812)), Some(Duration::from_micros(1970)), None]);
        of_wrk(&format!("{WRK}  Socket errors: connect 0, read 1, write 0, timeout 0\n")).unwrap_err();
        of_wrk(&format!("{WRK}  Non-2xx or 3xx responses: 4\n")).unwrap_err();
        of_wrk("").unwrap_err();
    }

    #[test]
    fn h2load_is_read() {
        let sample = of_h2load(H2LOAD).unwrap();
        assert_eq!((sample.count, sample.elapsed), (60205, Duration::from_secs(2)));
        of_h2load(&H2LOAD.replace("0 errored", "3 errored")).unwrap_err();
        of_h2load(&H2LOAD.replace("60205 2xx", "60000 2xx")).unwrap_err();
    }

    #[test]
    fn percentiles_are_of_sorted_values() {
        let sample = Sample::of((1..=1000).rev().map(Duration::from_micros).collect(), Duration::from_secs(1));
        assert_eq!(sample.latency, [501, 991, 1000].map(|micros| Some(Duration::from_micros(micros))));
        assert_eq!(Sample::of(Vec::new(), Duration::from_secs(1)).latency, [None; 3]);
    }
}
