//! Which rule a request falls under, and which route a connection: Gateway API's HTTPRoutes, GRPCRoutes, TLSRoutes and TCPRoutes, compiled so
//! that the cost does not grow with their number.
//!
//! Must never choose by anything but the request and the precedence that Gateway API lays down: two nodes agree.

mod calls;
mod condition;
mod connections;
mod convert;
mod cors;
mod decision;
mod explain;
mod filter;
mod hostname;
mod matches;
mod mirror;
mod ordered;
mod pattern;
mod prefixes;
mod rule;
mod session;
mod table;
#[cfg(test)]
mod tests;

use http::{HeaderMap, Method};

pub use self::{
    calls::CallMatch,
    connections::{ConnectionDecision, Connections, Greeting, RoutedConnection},
    convert::{Size, routes},
    cors::Cors,
    decision::{Asking, Decision, Forward, Routed, Services, decide, decide_at},
    explain::{Precedence, Standing, Way, standings, ways},
    filter::{Filter, HeaderModifier, PathModifier, Redirect, Rewrite},
    hostname::Hostname,
    matches::{HeaderMatch, HttpMatch, PathMatch, QueryMatch, Unmet, ValueMatch},
    mirror::{Mirror, services},
    pattern::Pattern,
    rule::{Backend, ObjectRef, Route, Routes, Rule},
    session::{Session, SessionPersistence, default_name, number},
    table::{Selected, Table},
};

/// What of a request can decide.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `Host` or `:authority`, as it came; empty when the request has none.
    pub authority: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Path, without the query.
    pub path: &'a str,
    /// What follows the question mark; empty without one.
    pub query: &'a str,
    /// Header fields.
    pub headers: &'a HeaderMap,
}

/// A configured value that cannot be used: the field, below the object that the caller names, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// As in `path.value`.
    pub field: &'static str,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl Invalid {
    fn new(field: &'static str, reason: impl Into<String>) -> Invalid {
        Invalid { field, reason: reason.into() }
    }
}
