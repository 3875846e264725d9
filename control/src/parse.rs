//! From the text of one manifest file to objects. Must never let one bad document affect another.
//!
//! What cannot be read is named: file, line, object, field. Labels and annotations that are not understood do not refuse their
//! object (`settings`): Kubernetes takes any, and a restart of control would forget it. What Kubernetes itself would not take refuses
//! its object, and the caller keeps the last good version.

mod annotations;
mod authorizations;
mod balancer;
mod breaker;
mod clients;
mod cluster;
mod connection_routes;
mod convert;
mod document;
mod fields;
mod grpc_routes;
mod mirrors;
mod probes;
mod profiles;
mod retry;
mod routes;
mod server_routes;
mod sessions;
mod settings;
mod splits;
#[cfg(test)]
mod tests;
mod timeouts;
mod written;

use std::fmt;

use weir_core::inbound::DefaultPolicy;

pub use self::{
    cluster::Read,
    written::{Written, is_subdomain, written},
};
use crate::{
    limits,
    objects::{Object, ObjectName},
};

/// What parsing depends on beside the text.
#[derive(Clone, Debug)]
pub struct Options {
    /// Trust domain of identities.
    pub trust_domain: String,
    /// Honour `linkerd.io/inject` where `weir.mesh/enabled` is not set.
    pub linkerd_inject: bool,
    /// Let requests say how they are sent again and what limits they have.
    pub l5d_request_headers: bool,
    /// Who may call a pod when neither it nor its namespace says.
    pub default_policy: DefaultPolicy,
}

/// Something that was refused, for the log and for `weir check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Relative to the folder of manifests; empty for objects of the API server.
    pub file: String,
    /// Line of the file, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The object, as far as it could be told.
    pub object: Option<String>,
    /// Path of the field, as in `spec.ports[0].port`; empty when the document as a whole is meant.
    pub field: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            formatter.write_str(&self.file)?;
            if self.line > 0 {
                write!(formatter, ":{}", self.line)?;
            }
            formatter.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(formatter, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.reason)
    }
}

/// What one file says.
#[derive(Debug, Default)]
pub struct Parsed {
    /// In the order of the file.
    pub objects: Vec<(ObjectName, Object)>,
    /// Objects whose names could be read but not the rest: their last good versions stay.
    pub refused: Vec<ObjectName>,
    /// A document could not even be named: what the file held before and does not redefine stays.
    pub unnamed_refusal: bool,
    /// Why.
    pub findings: Vec<Finding>,
    /// Kinds that are not read, `apiVersion/kind`.
    pub ignored: Vec<String>,
}

/// Reads one file. `file` is only for findings.
pub fn manifest(file: &str, text: &str, options: &Options) -> Parsed {
    let mut parsed = Parsed::default();
    for document in document::split(text) {
        document::read(file, &document, options, &mut parsed);
    }
    parsed.findings.truncate(limits::FINDINGS_PER_FILE);
    parsed
}

/// A field that was refused, before it is known where it stands.
#[derive(Debug, PartialEq, Eq)]
struct FieldError {
    field: String,
    reason: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.reason)
    }
}

impl FieldError {
    fn new(field: impl Into<String>, reason: impl Into<String>) -> FieldError {
        FieldError { field: field.into(), reason: reason.into() }
    }
}

/// A foreign value as findings and logs show it: bounded, and without control characters.
pub(crate) fn quoted(value: &str) -> String {
    let shown: String = value.chars().take(limits::QUOTED_BYTES).collect();
    format!("{shown:?}")
}
