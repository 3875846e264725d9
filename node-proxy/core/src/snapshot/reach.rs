//! Which endpoints of a Service a node sends requests to. Must never leave it without any where others of the Service are ready, but by its own
//! word (`internalTrafficPolicy: Local`).

use weir_api::v1;

use super::Snapshot;

/// What decides that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    /// All of them.
    #[default]
    Everywhere,
    /// Those on this node (`internalTrafficPolicy: Local`).
    Here,
    /// Those that are for this node by their hints.
    HintedNode,
    /// Those that are for this node's zone by their hints.
    HintedZone,
}

impl Reach {
    /// As kube-proxy follows hints (KEP-2433, KEP-3015), unless the Service itself says how zones count: only if each ready endpoint has some, and a ready one is for this node or its zone.
    pub(super) fn of<'a>(
        node: &Snapshot,
        local_only: bool,
        follows_hints: bool,
        endpoints: impl Iterator<Item = &'a v1::Endpoint> + Clone,
    ) -> Reach {
        if local_only {
            return Reach::Here;
        }
        if !follows_hints {
            return Reach::Everywhere;
        }
        let ready = endpoints.filter(|endpoint| endpoint.ready);
        let is_reached = |by: Reach| ready.clone().any(|endpoint| by.has(node, endpoint));
        let has_hints =
            |hints: fn(&v1::Endpoint) -> &[String]| ready.clone().all(|endpoint| !hints(endpoint).is_empty());
        if has_hints(|endpoint| &endpoint.node_hints) && is_reached(Reach::HintedNode) {
            return Reach::HintedNode;
        }
        if has_hints(|endpoint| &endpoint.zone_hints) && is_reached(Reach::HintedZone) {
            return Reach::HintedZone;
        }
        Reach::Everywhere
    }

    /// Whether an endpoint is one of them.
    pub(super) fn has(self, node: &Snapshot, endpoint: &v1::Endpoint) -> bool {
        let names = |hints: &[String], own: &str| !own.is_empty() && hints.iter().any(|hint| hint == own);
        match self {
            Reach::Everywhere => true,
            Reach::Here => endpoint.pod.as_ref().is_some_and(|pod| *pod.node_name == *node.node_name),
            Reach::HintedNode => names(&endpoint.node_hints, &node.node_name),
            Reach::HintedZone => names(&endpoint.zone_hints, &node.zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn endpoint(ready: bool, zones: &[&str], nodes: &[&str]) -> v1::Endpoint {
        let owned = |hints: &[&str]| hints.iter().map(|hint| (*hint).to_owned()).collect();
        v1::Endpoint { ready, zone_hints: owned(zones), node_hints: owned(nodes), ..v1::Endpoint::default() }
    }

    fn node(name: &str, zone: &str) -> Snapshot {
        Snapshot { zone: zone.into(), ..Snapshot::of_node(name) }
    }

    #[test]
    fn hints_hold_only_where_they_are_whole_and_reach_somebody() {
        let (a, b, none) = (endpoint(true, &["a"], &[]), endpoint(true, &["b"], &[]), endpoint(true, &[], &[]));
        let late = endpoint(false, &["a"], &[]);
        for (zone, endpoints, expected) in [
            ("a", vec![&a, &b], Reach::HintedZone),
            ("c", vec![&a, &b], Reach::Everywhere),
            ("", vec![&a, &b], Reach::Everywhere),
            ("a", vec![&a, &b, &none], Reach::Everywhere),
            ("a", vec![&late, &b], Reach::Everywhere),
            ("a", vec![], Reach::Everywhere),
        ] {
            assert_eq!(Reach::of(&node("n", zone), false, true, endpoints.into_iter()), expected, "{zone}");
        }
        let near = endpoint(true, &["a"], &["n", "m"]);
        let far = endpoint(true, &["a"], &["o"]);
        let of =
            |name: &str, endpoints: [&v1::Endpoint; 2]| Reach::of(&node(name, "a"), false, true, endpoints.into_iter());
        assert_eq!(of("n", [&near, &far]), Reach::HintedNode);
        assert_eq!(of("x", [&near, &far]), Reach::HintedZone, "none is for this node");
        assert_eq!(of("n", [&near, &a]), Reach::HintedZone, "one has no hint of a node");
        assert_eq!(Reach::of(&node("n", "a"), true, true, [&a].into_iter()), Reach::Here);
        let unfollowed = Reach::of(&node("n", "a"), false, false, [&a].into_iter());
        assert_eq!(unfollowed, Reach::Everywhere, "the Service's own word about zones counts");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]
        /// Who has ready endpoints keeps some, and never one that its hints give to others alone.
        #[test]
        fn nobody_is_left_without(
            given in vec((any::<bool>(), vec(select(&["a", "b", "c"][..]), 0..3), vec(select(&["n", "m"][..]), 0..2)), 0..6),
            zone in select(&["", "a", "b", "d"][..]),
        ) {
            let endpoints: Vec<_> = given.iter().map(|(ready, zones, nodes)| endpoint(*ready, zones, nodes)).collect();
            let node = node("n", zone);
            let reach = Reach::of(&node, false, true, endpoints.iter());
            let is_kept = endpoints.iter().any(|one| one.ready && reach.has(&node, one));
            prop_assert_eq!(is_kept, endpoints.iter().any(|one| one.ready));
            if reach == Reach::HintedZone {
                prop_assert!(endpoints.iter().filter(|one| reach.has(&node, one)).all(|one| one.zone_hints.iter().any(|hint| hint == zone)));
            }
        }
    }
}
