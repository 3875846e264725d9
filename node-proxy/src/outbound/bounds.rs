//! What one request is given: time, and attempts. Must never read a request's own word where the Service does not allow it.

use ::http::{Request, Version};
use weir_core::{request_policy::RequestPolicy, retry::Retry, route::Forward, timeouts::OwnLimits};

use super::{choose::Goal, http::Arrival};
use crate::{
    body::Body,
    deadline::{Clients, Deadline, Told},
};

/// What bounds a request in time.
pub(super) struct Bounds<'a> {
    pub(super) goal: &'a Goal,
    pub(super) forward: Option<&'a Forward>,
    pub(super) policy: Option<&'a RequestPolicy>,
    pub(super) retry: Option<&'a Retry>,
}

/// The limits of a request, if it has any: its route's, else its Service's, what it says instead, and its client's own deadline.
pub(super) fn deadline(bounds: Bounds<'_>, request: &Request<Body>, arrival: Arrival) -> Option<Box<Deadline>> {
    let Bounds { goal, forward, policy, retry } = bounds;
    let of_service = || goal.destination.service().map(|service| service.timeouts).unwrap_or_default();
    let mut limits = forward.map_or_else(of_service, Forward::timeouts);
    limits.retry = retry.and_then(|retry| retry.timeout);
    let own = policy.map(|policy| policy.limit(&mut limits)).unwrap_or_default();
    // Those of another namespace must not have the Service's endpoints taken out for what they think is late.
    let own = if goal.is_of_judged() { own } else { OwnLimits::ALL };
    let Arrival { started, grpc, .. } = arrival;
    let told = if grpc { Told::Grpc } else { Told::Http };
    let deadline = told.read(request.headers());
    let is_limited = !limits.is_none() || deadline.is_some();
    let clients = Clients { own, deadline, told };
    is_limited.then(|| Box::new(Deadline::new(limits, clients, request.version() == Version::HTTP_2, started)))
}

/// When it is sent again: as its route says, else its Service.
pub(super) fn retry<'a>(goal: &'a Goal, forward: Option<&'a Forward>) -> Option<&'a Retry> {
    let of_service = || goal.destination.service().and_then(|service| service.retry.as_deref());
    forward.map_or_else(of_service, Forward::retry)
}
