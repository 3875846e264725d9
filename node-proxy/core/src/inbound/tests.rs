//! Tests of the decision.

use std::sync::Arc;

use super::*;
use crate::snapshot::tests::workload_with;

mod routes;
mod servers;

const WEB: &str = "web.shop.serviceaccount.identity.linkerd.cluster.local";

fn networks() -> Vec<IpNet> {
    ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec()
}

fn decide(
    policy: DefaultPolicy,
    address: &str,
    identity: bool,
    from_node: bool,
    port: u16,
    ask: Ask<'_>,
) -> InboundPlan {
    let probes = vec![
        Probe { port: 8080, kind: ProbeKind::Get(Arc::from("/ready?full")) },
        Probe { port: 50051, kind: ProbeKind::Grpc },
        Probe { port: 5432, kind: ProbeKind::Connection },
    ];
    let server = workload_with(InboundPolicy { default: policy, probes, servers: Vec::new() });
    let identity = identity.then(|| WEB.parse::<Identity>().unwrap());
    let followed = [Probe { port: 8080, kind: ProbeKind::Get(Arc::from("/login")) }];
    let node = from_node.then_some(&followed[..]);
    let client = Client { identity: identity.as_ref(), is_tls: false, address: address.parse().unwrap() };
    standing(&server, Rules::Default(policy), &networks(), client).plan.or_probe(&server, port, node, ask)
}

const INSIDE: &str = "10.9.9.9";
const OUTSIDE: &str = "192.0.2.1";
const GET: Ask<'_> = Ask::Request { method: "GET", path: "/" };

#[test]
fn default_policies_are_linkerds() {
    use DefaultPolicy::{
        AllAuthenticated, AllUnauthenticated, Audit, ClusterAuthenticated, ClusterUnauthenticated, Deny,
    };
    let (yes, audit) = (InboundPlan::Allow(Authorization::Policy), InboundPlan::Audit);
    let no = |denial| InboundPlan::Deny(ProxyError::Unauthorized(denial));
    // Columns: plain inside, plain outside, mTLS inside, mTLS outside.
    let (nobody, unproven, far) = (no(Denial::Nobody), no(Denial::Unauthenticated), no(Denial::OutsideCluster));
    for (policy, expected) in [
        (AllUnauthenticated, [yes, yes, yes, yes]),
        (AllAuthenticated, [unproven, unproven, yes, yes]),
        (ClusterUnauthenticated, [yes, far, yes, far]),
        (ClusterAuthenticated, [unproven, unproven, yes, far]),
        (Deny, [nobody, nobody, nobody, nobody]),
        (Audit, [audit, audit, audit, audit]),
    ] {
        let clients = [(INSIDE, false), (OUTSIDE, false), (INSIDE, true), (OUTSIDE, true)];
        for ask in [GET, Ask::Connection] {
            let found = clients.map(|(address, identity)| decide(policy, address, identity, false, 80, ask));
            assert_eq!(found, expected, "{policy} {ask:?}");
        }
    }
}

#[test]
fn a_probe_is_what_was_declared_and_asked_by_the_node() {
    let get = |path| Ask::Request { method: "GET", path };
    let post = |path| Ask::Request { method: "POST", path };
    let health = "/grpc.health.v1.Health/Check";
    for (from_node, port, ask, allowed) in [
        (true, 8080, get("/ready?full"), true),
        (false, 8080, get("/ready?full"), false),
        (true, 8081, get("/ready?full"), false),
        (true, 8080, get("/ready"), false),
        (true, 8080, get("/ready?full&more"), false),
        (true, 8080, get("/"), false),
        (true, 8080, get("/login"), true),
        (false, 8080, get("/login"), false),
        (true, 8080, post("/ready?full"), false),
        (true, 8080, Ask::Connection, false),
        (true, 50051, post(health), true),
        (false, 50051, post(health), false),
        (true, 50051, post("/grpc.health.v1.Health/Watch"), false),
        (true, 8080, post(health), false),
        (true, 5432, Ask::Connection, true),
        (false, 5432, Ask::Connection, false),
        (true, 5432, get("/"), false),
    ] {
        let found = decide(DefaultPolicy::Deny, INSIDE, false, from_node, port, ask);
        let expected = match allowed {
            true => InboundPlan::Allow(Authorization::Probe),
            false => InboundPlan::Deny(ProxyError::Unauthorized(Denial::Nobody)),
        };
        assert_eq!(found, expected, "{from_node} {port} {ask:?}");
    }
}

#[test]
fn the_workloads_own_address_is_a_loop() {
    let found = decide(DefaultPolicy::AllUnauthenticated, "10.1.0.1", false, false, 80, GET);
    assert_eq!(found, InboundPlan::Deny(ProxyError::Loop));
}

#[test]
fn names_come_back_and_nothing_else_is_one() {
    for policy in DefaultPolicy::ALL {
        assert_eq!(policy.name().parse(), Ok(policy));
        assert_eq!(DefaultPolicy::of_api(policy.to_api()), Some(policy));
    }
    for name in ["", "Deny", "deny ", "allow", "all-authenticated,deny"] {
        assert_eq!(name.parse::<DefaultPolicy>(), Err(UnknownPolicy), "{name:?}");
    }
    assert_eq!(DefaultPolicy::of_api(weir_api::v1::DefaultPolicy::Unspecified), None);
}
