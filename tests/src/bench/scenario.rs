//! What is measured and where the bar is. Must never hold a bar that the project did not set itself.

use std::time::Duration;

use super::{
    generate,
    hops::{GRPC, HTTP1, HTTP2},
    load::{self, Sample},
    serve::{ECHO, SINK},
    stage::{Stage, Subject},
};

/// How traffic is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Load {
    /// wrk, this many connections.
    Closed(u32),
    /// Requests per second.
    Open(u32),
    /// h2load.
    Http2,
    /// h2load as a gRPC client.
    Grpc,
    /// One connection, one direction.
    Bulk,
    /// A connection for each request.
    Requests,
    /// A connection for each 64 bytes.
    Echoes,
}

/// One comparison.
#[derive(Debug)]
pub(super) struct Scenario {
    /// As options call it.
    pub(super) name: &'static str,
    /// As the table calls it.
    pub(super) title: &'static str,
    /// What is counted.
    pub(super) unit: &'static str,
    load: Load,
    /// Greatest ratios to nginx that are good enough: two nodes, same node.
    bars: [Option<f64>; 2],
}

/// All of them, in the order of the table.
pub(super) const SCENARIOS: [Scenario; 8] = [
    scenario("http1-16", "HTTP/1.1, 16 connections", "request", Load::Closed(16), [Some(2.9), Some(1.4)]),
    scenario("http1-one", "HTTP/1.1, 1 connection", "request", Load::Closed(1), [Some(3.0), None]),
    scenario("http1-open", "HTTP/1.1, open loop, 2,000/s", "request", Load::Open(2_000), [Some(2.5), None]),
    scenario("http2", "HTTP/2, 4 connections × 16 streams", "request", Load::Http2, [Some(1.5), None]),
    scenario("grpc", "gRPC unary, 4 connections × 16 streams", "request", Load::Grpc, [Some(1.5), None]),
    scenario("bulk", "opaque bulk, one connection", "MB", Load::Bulk, [Some(2.0), Some(0.9)]),
    scenario("new-http", "new connection + 1 HTTP request, 16 at once", "request", Load::Requests, [Some(2.4), None]),
    scenario(
        "new-opaque",
        "new opaque connection + 64 B echo, 16 at once",
        "connection",
        Load::Echoes,
        [Some(20.0), None],
    ),
];

const fn scenario(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    load: Load,
    bars: [Option<f64>; 2],
) -> Scenario {
    Scenario { name, title, unit, load, bars }
}

impl Scenario {
    /// Who can do it.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        let mut subjects = vec![Subject::Direct, Subject::Nginx, Subject::Haproxy];
        if matches!(self.load, Load::Http2 | Load::Grpc) {
            subjects.push(Subject::Nghttpx);
        }
        subjects.extend([Subject::TwoNodes, Subject::SameNode]);
        subjects
    }

    /// The greatest ratio to nginx that is good enough.
    pub(super) fn bar(&self, subject: Subject) -> Option<f64> {
        match subject {
            Subject::TwoNodes => self.bars[0],
            Subject::SameNode => self.bars[1],
            _ => None,
        }
    }

    /// One round of one subject.
    ///
    /// # Errors
    /// Any request failed.
    pub(super) fn measure(&self, stage: &Stage, subject: Subject, length: Duration) -> Result<Sample, String> {
        let client = stage.client(subject);
        let to = |port| stage.address(subject, port);
        let before = stage.cpu(subject);
        let mut sample = match self.load {
            Load::Closed(connections) => load::wrk(client, to(HTTP1), "/", connections, length),
            // Few requests, and the kernel counts in hundredths of a second: twice as long.
            Load::Open(rate) => client.enter(|| generate::open_loop(to(HTTP1), rate, length * 2)),
            Load::Http2 => load::h2load(client, &stage.folder(), to(HTTP2), false, length),
            Load::Grpc => load::h2load(client, &stage.folder(), to(GRPC), true, length),
            Load::Bulk => client.enter(|| generate::bulk(to(SINK), length)),
            Load::Requests => client.enter(|| generate::new_requests(to(HTTP1), length)),
            Load::Echoes => client.enter(|| generate::new_echoes(to(ECHO), length)),
        }?;
        sample.cpu = stage.cpu(subject).saturating_sub(before);
        Ok(sample)
    }
}
