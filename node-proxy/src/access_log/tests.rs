//! Tests of the access log.

use std::{
    io::{self, Write},
    sync::{Arc, mpsc},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::Request;
use parking_lot::Mutex;
use weir_core::snapshot::{AccessLog, Workload};

use super::{AccessEntry, AccessLogger, time::rfc3339};
use crate::{
    limits,
    telemetry::{
        Format, NodeState as _, Telemetry,
        fake::{FakeState, identity, workload},
    },
};

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writer that stands still until it is let go.
struct Stuck(mpsc::Receiver<()>, mpsc::SyncSender<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _test_over = self.1.send(());
        let _let_go = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wanting(access_log: AccessLog) -> Workload {
    let state = FakeState::new(vec![workload("u1", "web-1")]);
    let snapshot = state.snapshot();
    let known = snapshot.workloads().next().unwrap();
    Workload {
        uid: Arc::clone(&known.uid),
        pod: Arc::clone(&known.pod),
        addresses: known.addresses.clone(),
        identity: known.identity.clone(),
        capture: known.capture.clone(),
        ports: known.ports.clone(),
        access_log,
        policy: known.policy.clone(),
    }
}

/// What one request leaves in the log.
fn logged(access_log: AccessLog, request: &Request<()>, client_known: bool) -> String {
    let output = Output::default();
    let logger = AccessLogger::start(output.clone(), Arc::new(Telemetry::new())).unwrap();
    let client = identity("client");
    let peer = "10.0.0.9:5555".parse().unwrap();
    let entry = AccessEntry::begin(&wanting(access_log), &logger, request, peer, client_known.then_some(&client));
    if let Some(entry) = entry {
        let mut entry = entry.answered(200);
        entry.response_bytes += 42;
        entry.log();
    }
    assert!(logger.flush(Duration::from_secs(10)));
    let bytes = output.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn json_has_linkerds_keys_and_types() {
    let request = Request::builder()
        .uri("http://web:80/a?b=%22")
        .header("host", "web")
        .header("user-agent", "curl/8 \"quoted\"\\")
        .header("content-length", "7")
        .header("x-request-id", "r1")
        .body(())
        .unwrap();
    let text = logged(AccessLog::Json, &request, true);
    assert_eq!(text.matches('\n').count(), 1);
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["client.addr"], "10.0.0.9:5555");
    assert_eq!(line["client.id"], "client.shop.serviceaccount.identity.linkerd.cluster.local");
    assert_eq!((&line["method"], &line["uri"]), (&"GET".into(), &"http://web:80/a?b=%22".into()));
    assert_eq!((&line["version"], &line["host"]), (&"HTTP/1.1".into(), &"web".into()));
    assert_eq!((&line["status"], &line["response_bytes"]), (&200.into(), &"42".into()));
    assert_eq!((&line["request_bytes"], &line["trace_id"]), (&"7".into(), &"r1".into()));
    assert_eq!(line["user_agent"], "curl/8 \"quoted\"\\");
    assert!(line["total_ns"].as_str().unwrap().parse::<u64>().is_ok());
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(line["processing_ns"], "");
    assert_eq!(line.as_object().unwrap().len(), 14);
}

#[test]
fn apache_lines_cannot_be_forged() {
    // The identity is the only other text; the method and URI are what a client may put bytes into.
    let request = Request::builder().method("G'T").uri("/a\\\"?é").body(());
    let Ok(request) = request else {
        panic!("the request parses: a URI may hold these bytes");
    };
    let text = logged(AccessLog::Apache, &request, false);
    assert!(text.starts_with("10.0.0.9:5555 - - ["), "{text}");
    assert!(text.ends_with("] \"G'T /a\\\\\\\"?\\xc3\\xa9 HTTP/1.1\" 200 42\n"), "{text}");
    assert_eq!(text.matches('\n').count(), 1);
}

#[test]
fn header_bytes_that_are_no_utf8_stay_inside_json() {
    let odd = http::HeaderValue::from_bytes(b"a\xff\tb").unwrap();
    let request = Request::builder().header("user-agent", odd).body(()).unwrap();
    let line: serde_json::Value = serde_json::from_str(&logged(AccessLog::Json, &request, false)).unwrap();
    assert_eq!(line["user_agent"], "a\u{fffd}\tb");
    assert_eq!(line["client.id"], "-");
}

#[test]
fn long_fields_are_clipped_between_characters() {
    let long = http::HeaderValue::from_str(&"é".repeat(limits::ACCESS_LOG_FIELD)).unwrap();
    let request = Request::builder().header("user-agent", long).body(()).unwrap();
    let line: serde_json::Value = serde_json::from_str(&logged(AccessLog::Json, &request, false)).unwrap();
    assert_eq!(line["user_agent"].as_str().unwrap().len(), limits::ACCESS_LOG_FIELD);
}

#[test]
fn off_means_off() {
    assert_eq!(logged(AccessLog::Off, &Request::new(()), true), "");
}

#[test]
fn a_writer_that_stands_still_costs_lines_and_nothing_else() {
    let (go, wait) = mpsc::sync_channel(1);
    let (writing, began) = mpsc::sync_channel(1);
    let telemetry = Arc::new(Telemetry::new());
    let logger = AccessLogger::start(Stuck(wait, writing), Arc::clone(&telemetry)).unwrap();
    logger.line("first\n".to_owned());
    began.recv().unwrap();
    for _ in 0..limits::ACCESS_LOG_LINES + 10 {
        logger.line("more\n".to_owned());
    }
    let text: String = telemetry.scrape(&*FakeState::new(Vec::new()), Format::Prometheus).collect();
    assert!(text.contains("\nweir_access_log_dropped_total 10\n"));
    drop(go);
}

#[test]
fn timestamps_know_leap_years() {
    let at = |seconds, nanos| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos));
    assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
    assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
    assert_eq!(at(1_661_286_500, 71_809_491), "2022-08-23T20:28:20.071809491Z");
    assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000000000Z");
    assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), rfc3339(SystemTime::UNIX_EPOCH));
}
