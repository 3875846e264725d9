//! One request on its way to a line. Must never hold more of a peer's bytes than `limits::ACCESS_LOG_FIELD` per field.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, Request, Version, header, header::AsHeaderName};
use weir_core::{
    identity::Identity,
    snapshot::{AccessLog, Workload},
};

use super::{AccessLogger, time};
use crate::limits;

/// A request whose line is written when its response has ended.
pub struct AccessEntry {
    logger: AccessLogger,
    json: bool,
    started: Instant,
    timestamp: SystemTime,
    client: SocketAddr,
    client_id: String,
    method: String,
    uri: String,
    version: Version,
    trace_id: String,
    request_bytes: String,
    user_agent: String,
    host: String,
    status: u16,
    total: Duration,
    waited: Option<Duration>,
    /// Bytes of the response's body so far.
    pub response_bytes: u64,
}

impl AccessEntry {
    /// None when the workload wants no access log.
    pub fn begin<B>(
        workload: &Workload,
        logger: &AccessLogger,
        request: &Request<B>,
        client: SocketAddr,
        client_id: Option<&Identity>,
    ) -> Option<Box<AccessEntry>> {
        let json = match workload.access_log {
            AccessLog::Off => return None,
            AccessLog::Apache => false,
            AccessLog::Json => true,
        };
        let headers = request.headers();
        let trace_id = ["x-b3-traceid", "x-request-id", "x-amzn-trace-id"];
        let authority = request.uri().authority().map(|authority| clip(authority.as_str()));
        Some(Box::new(AccessEntry {
            logger: logger.clone(),
            json,
            started: Instant::now(),
            timestamp: SystemTime::now(),
            client,
            client_id: client_id.map_or_else(|| "-".to_owned(), |id| id.as_str().to_owned()),
            method: clip(request.method().as_str()),
            uri: clip(&request.uri().to_string()),
            version: request.version(),
            trace_id: trace_id.into_iter().find_map(|name| field(headers, name)).unwrap_or_default(),
            request_bytes: field(headers, header::CONTENT_LENGTH).unwrap_or_default(),
            user_agent: field(headers, header::USER_AGENT).unwrap_or_default(),
            host: field(headers, header::HOST).or(authority).unwrap_or_default(),
            status: 0,
            total: Duration::ZERO,
            waited: None,
            response_bytes: 0,
        }))
    }

    /// The head of the response is there.
    pub fn answered(mut self: Box<Self>, status: u16) -> Box<Self> {
        self.status = status;
        self.total = self.started.elapsed();
        self
    }

    /// How much of the time until the head was spent on the application; the rest is the proxy's own processing.
    pub fn waited(&mut self, waited: Duration) {
        self.waited = Some(waited);
    }

    /// The response has ended, or was given up: queues the line.
    pub fn log(self: Box<Self>) {
        let line = if self.json { self.json_line() } else { self.apache_line() };
        self.logger.line(line);
    }

    /// Linkerd's keys and types: all strings but the status.
    fn json_line(&self) -> String {
        let processing = self.waited.map(|waited| self.total.saturating_sub(waited).as_nanos().to_string());
        let mut line = serde_json::json!({
            "client.addr": self.client.to_string(),
            "client.id": self.client_id,
            "timestamp": time::rfc3339(self.timestamp),
            "method": self.method,
            "uri": self.uri,
            "version": format!("{:?}", self.version),
            "trace_id": self.trace_id,
            "request_bytes": self.request_bytes,
            "status": self.status,
            "response_bytes": self.response_bytes.to_string(),
            "total_ns": self.total.as_nanos().to_string(),
            "processing_ns": processing.unwrap_or_default(),
            "user_agent": self.user_agent,
            "host": self.host,
        })
        .to_string();
        line.push('\n');
        line
    }

    /// Linkerd's variant of Apache's common format: port after the address, time as in RFC 3339.
    fn apache_line(&self) -> String {
        let mut line = format!("{} ", self.client);
        escape(&self.client_id, &mut line);
        line.push_str(" - [");
        line.push_str(&time::rfc3339(self.timestamp));
        line.push_str("] \"");
        escape(&self.method, &mut line);
        line.push(' ');
        escape(&self.uri, &mut line);
        let Self { version, status, response_bytes, .. } = self;
        // Writing into a String cannot fail.
        let _infallible = writeln!(line, " {version:?}\" {status} {response_bytes}");
        line
    }
}

/// Bytes that are no visible ASCII are written as Apache does: `\xhh`.
fn escape(text: &str, line: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            b' '..=b'~' => line.push(char::from(byte)),
            other => {
                let _infallible = write!(line, "\\x{other:02x}");
            }
        }
    }
}

fn field(headers: &HeaderMap, name: impl AsHeaderName) -> Option<String> {
    headers.get(name).map(|value| clip(&String::from_utf8_lossy(value.as_bytes())))
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(limits::ACCESS_LOG_FIELD);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
