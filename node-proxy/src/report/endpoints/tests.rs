use weir_core::breaker::{Admission, Outcome};

use super::*;
use crate::telemetry::fake;

const AT: Duration = Duration::from_secs(100);
const MS: Duration = Duration::from_millis(1);

/// What `fake::service` has: `shop/web` with a breaker, dialled by so many addresses, with so many endpoints.
fn snapshot(addresses: &[&str], endpoints: usize) -> Snapshot {
    let breaker =
        v1::CircuitBreaker { max_failures: 1, min_penalty_ms: 1_000, max_penalty_ms: 60_000, ..Default::default() };
    let mut resources = fake::service();
    let mut dialled = Vec::new();
    for resource in &mut resources {
        match resource.body.as_mut() {
            Some(v1::resource::Body::Endpoints(slice)) => {
                let one = slice.endpoints[0].clone();
                let address = |index: usize| format!("10.1.{}.{}", index / 250, index % 250);
                slice.endpoints = (0..endpoints)
                    .map(|index| v1::Endpoint { address: address(index), uid: index.to_string(), ..one.clone() })
                    .collect();
            }
            Some(v1::resource::Body::Destination(destination)) => {
                if let Some(v1::destination::Target::Service(service)) = &mut destination.target {
                    service.breaker = Some(breaker);
                }
                dialled.extend(addresses.iter().map(|address| v1::Resource {
                    key: resource.key.clone().map(|key| v1::ResourceKey { name: (*address).to_owned(), ..key }),
                    ..resource.clone()
                }));
            }
            _other => {}
        }
    }
    resources.extend(dialled);
    let applied = weir_core::snapshot::apply(&Snapshot::default(), Duration::ZERO, resources, Vec::new());
    assert!(applied.rejected.is_empty(), "{:?}", applied.rejected);
    applied.snapshot
}

/// A failure, or a trial's end, at one endpoint of what has this address.
fn ended(snapshot: &Snapshot, address: &str, index: usize, now: Duration, outcome: Outcome) {
    let service = snapshot.destination(&address.parse().unwrap()).and_then(|one| one.service()).unwrap();
    let (breaker, endpoint) = (service.breaker.as_ref().unwrap(), &service.endpoints[index]);
    let admission = endpoint.admit(breaker, now).unwrap();
    breaker.ended(endpoint.health.as_ref().unwrap(), now, admission, outcome, 0);
}

fn all(snapshot: &Snapshot, now: Duration) -> (Vec<v1::EndpointReport>, u64) {
    reports(snapshot, &v1::EndpointsQuery::default(), now)
}

const FIRST: &str = "10.96.0.7:80";
const SECOND: &str = "10.96.0.8:80";

#[test]
fn an_endpoint_is_in_then_out_then_tried_then_in() {
    let snapshot = snapshot(&[], 1);
    let standing = |now| {
        let (found, _) = all(&snapshot, now);
        (found[0].state(), found[0].lasted_ms, found[0].next_trial_ms, found[0].ejections)
    };
    assert_eq!(standing(AT), (v1::EndpointState::In, None, None, 0));
    ended(&snapshot, FIRST, 0, AT, Outcome::Failure(None));
    assert_eq!(standing(AT + MS * 400), (v1::EndpointState::Out, Some(400), Some(600), 1));
    // Due, and nobody has made it.
    assert_eq!(standing(AT + MS * 5_000), (v1::EndpointState::Out, Some(5_000), Some(0), 1));
    let service = snapshot.destination(&FIRST.parse().unwrap()).and_then(|one| one.service()).unwrap();
    let (breaker, endpoint) = (service.breaker.as_ref().unwrap(), &service.endpoints[0]);
    let trial = endpoint.admit(breaker, AT + MS * 5_000).unwrap();
    assert!(matches!(trial, Admission::Trial(_)));
    assert_eq!(standing(AT + MS * 5_000), (v1::EndpointState::Trial, Some(5_000), Some(60_000), 1));
    let health = endpoint.health.as_ref().unwrap();
    breaker.ended(health, AT + MS * 5_000, trial, Outcome::Failure(None), 0);
    assert_eq!(standing(AT + MS * 5_000), (v1::EndpointState::Out, Some(5_000), Some(2_000), 2));
    ended(&snapshot, FIRST, 0, AT + MS * 7_000, Outcome::Success);
    assert_eq!(standing(AT + MS * 9_000), (v1::EndpointState::In, Some(2_000), None, 2));
}

/// Each address of a Service has breakers of its own.
#[test]
fn one_that_is_out_by_any_address_is_out() {
    let snapshot = snapshot(&[SECOND], 2);
    ended(&snapshot, SECOND, 1, AT, Outcome::Failure(None));
    let (found, left_out) = all(&snapshot, AT);
    let shown: Vec<_> = found.iter().map(|one| (one.address.as_str(), one.state(), one.ejections)).collect();
    let (out, is_in) = (v1::EndpointState::Out, v1::EndpointState::In);
    assert_eq!(shown, [("10.1.0.1:8080", out, 1), ("10.1.0.0:8080", is_in, 0)], "the one that is out first");
    assert_eq!(left_out, 0);
    ended(&snapshot, FIRST, 1, AT, Outcome::Failure(None));
    assert_eq!(all(&snapshot, AT).0[0].ejections, 2, "by both");
}

/// Seen to fail without the order by state.
#[test]
fn at_the_bound_those_that_are_out_stay() {
    let snapshot = snapshot(&[], limits::ENDPOINTS_REPORTED + 20);
    let last = limits::ENDPOINTS_REPORTED + 19;
    ended(&snapshot, FIRST, last, AT, Outcome::Failure(None));
    let (found, left_out) = all(&snapshot, AT);
    assert_eq!((found.len(), left_out), (limits::ENDPOINTS_REPORTED, 20));
    assert_eq!(found.iter().position(|one| one.state() == v1::EndpointState::Out), Some(0));
}

#[test]
fn only_what_is_asked_about() {
    let snapshot = snapshot(&[], 3);
    let asked = |namespace: &str, services: &[&str]| {
        let services = services.iter().map(|name| (*name).to_owned()).collect();
        reports(&snapshot, &v1::EndpointsQuery { namespace: namespace.to_owned(), services }, AT).0.len()
    };
    assert_eq!((asked("", &[]), asked("shop", &[]), asked("shop", &["other", "web"])), (3, 3, 3));
    assert_eq!((asked("other", &[]), asked("shop", &["other"])), (0, 0));
}

#[test]
fn control_hears_of_those_that_are_out_and_of_some_only() {
    let snapshot = snapshot(&[SECOND], limits::OUT_ENDPOINTS + 5);
    assert!(out(&snapshot).endpoints.is_empty());
    ended(&snapshot, FIRST, 3, AT, Outcome::Failure(None));
    ended(&snapshot, SECOND, 3, AT, Outcome::Failure(None));
    let told = out(&snapshot).endpoints;
    let one = v1::OutEndpoint { service: "shop/web".to_owned(), port: 80, uid: "3".to_owned() };
    assert_eq!(told, [one], "once, by whichever address");
    ended(&snapshot, FIRST, 3, AT + MS * 2_000, Outcome::Success);
    ended(&snapshot, SECOND, 3, AT + MS * 2_000, Outcome::Success);
    assert!(out(&snapshot).endpoints.is_empty());
    (0..limits::OUT_ENDPOINTS + 5).for_each(|index| ended(&snapshot, FIRST, index, AT, Outcome::Failure(None)));
    assert_eq!(out(&snapshot).endpoints.len(), limits::OUT_ENDPOINTS);
}
