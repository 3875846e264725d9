//! Refusals, for whoever watches over the cluster: one line each, under a log target of their own.
//!
//! Must never hold a token or a key, and never text of a caller that is not quoted and bounded.

use std::net::SocketAddr;

use tonic::{Code, Status};

use crate::parse::quoted;

/// What was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// To be a node.
    Node,
    /// To ask what `weir` asks.
    Api,
    /// To get a certificate.
    Certify,
    /// To be a replica of control.
    Replica,
}

impl Act {
    fn as_str(self) -> &'static str {
        match self {
            Act::Node => "connect as a node",
            Act::Api => "ask as a person's program",
            Act::Certify => "get a certificate",
            Act::Replica => "ask as a replica of control",
        }
    }
}

/// Writes the line. `claimed`: who the caller says it is, as far as that is known.
pub fn refused(act: Act, status: &Status, claimed: &str, peer: Option<SocketAddr>) {
    // Nobody was judged: the judge was away.
    if status.code() == Code::Unavailable {
        return;
    }
    let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
    tracing::warn!(target: "weir_control::audit", act = act.as_str(), reason = status.message(), claimed = %quoted(claimed), peer, "refused");
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        sync::Mutex,
    };

    use super::*;

    #[test]
    fn what_a_caller_claims_is_one_short_line() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = Mutex::new(File::create(log.path()).unwrap());
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(file).finish();
        let claimed = format!("node-a\nforged {}", "x".repeat(1_000_000));
        tracing::subscriber::with_default(lines, || {
            refused(Act::Node, &Status::permission_denied("no"), &claimed, None);
        });
        let log = fs::read_to_string(log.path()).unwrap();
        assert!(log.contains(r"node-a\nforged xxx") && log.len() < 500 && log.lines().count() == 1, "{log}");
    }
}
