//! Which ServiceProfile or TrafficSplit stands for whom: instead of all routes, as with Linkerd. Must never let a route and a profile hold for
//! the same clients.

use std::{collections::HashMap, sync::Arc};

use crate::objects::{HttpRoute, Kind, Name, ObjectName, Override, Profile};

/// Of one Service, by namespace of the objects.
#[derive(Debug, Default)]
pub(super) struct Profiles<'a> {
    by_namespace: HashMap<&'a str, Standing<'a>>,
}

/// What one namespace says.
#[derive(Clone, Copy, Debug, Default)]
struct Standing<'a> {
    profile: Option<(&'a ObjectName, &'a Profile)>,
    /// The oldest one.
    split: Option<(&'a ObjectName, &'a Profile)>,
}

impl<'a> Standing<'a> {
    fn own(&self) -> Option<&'a ObjectName> {
        self.profile.or(self.split).map(|(own, _profile)| own)
    }

    /// A profile without any takes the split's (Linkerd's extension writes them into it).
    fn overrides(&self) -> &'a [Override] {
        let of =
            |given: Option<(&'a ObjectName, &'a Profile)>| given.map_or(&[][..], |(_own, profile)| &profile.overrides);
        if of(self.profile).is_empty() { of(self.split) } else { of(self.profile) }
    }
}

impl<'a> Profiles<'a> {
    /// Of routes in order of their age.
    pub(super) fn of(routes: &[(&'a ObjectName, &'a Arc<HttpRoute>)]) -> Profiles<'a> {
        let mut by_namespace: HashMap<&str, Standing<'_>> = HashMap::new();
        for (own, route) in routes {
            let Some(profile) = route.profile.as_deref().filter(|profile| profile.decides()) else { continue };
            let standing = by_namespace.entry(&own.name.namespace).or_default();
            let held = if own.kind == Kind::ServiceProfile { &mut standing.profile } else { &mut standing.split };
            *held = held.or(Some((*own, profile)));
        }
        Profiles { by_namespace }
    }

    /// Why an object says nothing about requests to a Service, if that is so for something said here; for people.
    pub(super) fn aside(&self, own: &ObjectName, route: &HttpRoute, service: &Name) -> Option<String> {
        let of = |namespace: &str| self.by_namespace.get(namespace);
        let Some(profile) = &route.profile else {
            let standing = of(&own.name.namespace).or_else(|| of(&service.namespace));
            let instead = standing.and_then(Standing::own)?;
            return Some(format!("{instead} stands instead of all routes of Service {service}"));
        };
        if !profile.decides() {
            return Some("it has neither routes nor dstOverrides, and leaves requests to others".to_owned());
        }
        let standing = of(&own.name.namespace)?;
        let instead = standing.own().filter(|instead| *instead != own)?;
        let is_merged =
            standing.split.is_some_and(|(split, _)| split == own) && standing.overrides() == profile.overrides;
        Some(if is_merged {
            format!("its weights are in force by {instead}")
        } else {
            format!("{instead} stands instead")
        })
    }

    /// Where the requests go of which an object decides; empty: to the Service itself.
    pub(super) fn overrides(&self, own: &ObjectName) -> &'a [Override] {
        self.by_namespace.get(&*own.name.namespace).map(Standing::overrides).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use weir_api::v1::{self, http_backend, http_rule};

    use crate::{
        fixtures::{SERVICE, route, slice, upsert},
        index::Index,
        snapshot::destination,
    };

    fn index(texts: &[&str]) -> Index {
        let mut index = Index::default();
        upsert(&mut index, &texts.concat());
        index
    }

    fn profile(namespace: &str, spec: &str) -> String {
        format!(
            "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {{name: web.demo.svc.cluster.local, namespace: {namespace}}}\nspec:\n{spec}\n---\n"
        )
    }

    fn split(name: &str, namespace: &str, to: &str) -> String {
        format!(
            "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  service: web.demo.svc\n  backends: [{{service: {to}, weight: 1}}]\n---\n"
        )
    }

    fn told(index: &Index) -> v1::ServiceTarget {
        let (found, _slices) = destination(index, "10.96.0.1:80".parse().unwrap());
        let Some(v1::destination::Target::Service(target)) = found.target else { panic!("{found:?}") };
        assert!(weir_core::route::routes(&target.http_routes).is_ok(), "nodes take it");
        target
    }

    fn shown(index: &Index) -> Vec<String> {
        let objects = told(index).http_routes.into_iter().filter_map(|route| route.object);
        let mut shown: Vec<String> =
            objects.map(|object| format!("{} {}/{}", object.kind, object.namespace, object.name)).collect();
        shown.sort();
        shown
    }

    const ROUTES: &str = "  routes: [{name: a, condition: {method: GET}}]";

    /// Linkerd's order: the client's profile, the Service's profile, the client's routes, the Service's.
    #[test]
    fn a_profile_stands_instead_of_all_routes() {
        let (own, far) = (route("own", "demo", ""), route("far", "other", ""));
        let producer = profile("demo", ROUTES);
        let name = "web.demo.svc.cluster.local";
        let all = [SERVICE, &own, &far, &producer];
        assert_eq!(shown(&index(&all)), [format!("ServiceProfile demo/{name}")]);
        let consumer = profile("other", ROUTES);
        let mixed = [SERVICE, &own, &far, &consumer];
        assert_eq!(shown(&index(&mixed)), ["HTTPRoute demo/own".to_owned(), format!("ServiceProfile other/{name}")]);
        let empty = profile("demo", "  opaquePorts: ['9000']");
        assert_eq!(shown(&index(&[SERVICE, &own, &empty])), ["HTTPRoute demo/own"]);
        let grpc = route("calls", "demo", "").replace("HTTPRoute", "GRPCRoute");
        assert_eq!(shown(&index(&[SERVICE, &grpc, &producer])), [format!("ServiceProfile demo/{name}")]);
    }

    #[test]
    fn a_split_stands_by_a_profile_without_overrides() {
        let name = "web.demo.svc.cluster.local";
        let (one, two) = (split("a", "demo", "canary"), split("b", "demo", "web"));
        assert_eq!(shown(&index(&[SERVICE, &route("own", "demo", ""), &one, &two])), ["TrafficSplit demo/a"]);
        let index = index(&[SERVICE, &slice(&[]), &profile("demo", ROUTES), &two]);
        assert_eq!(shown(&index), [format!("ServiceProfile demo/{name}")]);
        for rule in &told(&index).http_routes[0].rules {
            let Some(http_rule::Destination::Backends(all)) = &rule.destination else { panic!("{rule:?}") };
            let Some(http_backend::Target::Service(service)) = &all.backends[0].target else { panic!("{all:?}") };
            assert_eq!(
                (service.name.as_str(), service.port, &*service.endpoints),
                ("web", 80, &["demo/web-1".to_owned()][..])
            );
        }
    }

    #[test]
    fn an_override_that_is_missing_leaves_its_share_and_is_told_when_it_comes() {
        let overrides =
            "  dstOverrides: [{authority: canary.demo.svc, weight: 9}, {authority: web.demo.svc, weight: 1}]";
        let weights = |index: &Index| -> Vec<(u32, bool)> {
            let Some(http_rule::Destination::Backends(all)) = &told(index).http_routes[0].rules[0].destination else {
                panic!()
            };
            let is_there = |one: &v1::HttpBackend| matches!(one.target, Some(http_backend::Target::Service(_)));
            all.backends.iter().map(|one| (one.weight, is_there(one))).collect()
        };
        let mut index = index(&[SERVICE, &profile("demo", overrides)]);
        assert_eq!(weights(&index), [(0, false), (1000, true)]);
        let canary = SERVICE.replace("name: web", "name: canary").replace("10.96.0.1", "10.96.0.2");
        let changed = upsert(&mut index, &canary);
        assert!(changed.addresses.contains(&"10.96.0.1".parse().unwrap()), "nodes are told anew");
        assert_eq!(weights(&index), [(9000, true), (1000, true)]);
        let gone = overrides.replace("web.demo", "gone.demo").replace("canary.demo", "lost.demo");
        let index = self::index(&[SERVICE, &profile("demo", &gone)]);
        assert_eq!(weights(&index), [(9000, false), (1000, false)], "each share is answered with 500");
    }

    #[test]
    fn what_a_profile_says_stands_above_the_services_annotations() {
        let service = SERVICE.replace(
            "namespace: demo}",
            "namespace: demo, annotations: {timeout.linkerd.io/request: 9s, timeout.linkerd.io/idle: 8s, retry.linkerd.io/http: 5xx, weir.mesh/retry-budget-ratio: \"0.5\"}}",
        );
        let spec = "  routes: [{name: a, condition: {method: GET}, timeout: 2s}, {name: b, condition: {method: PUT}, isRetryable: true}]\n  retryBudget: {retryRatio: 0.1, minRetriesPerSecond: 1, ttl: 5s}";
        let target = told(&index(&[&service, &profile("demo", spec)]));
        let rules = &target.http_routes[0].rules;
        let request = |at: usize| rules[at].timeouts.map(|timeouts| (timeouts.request_ms, timeouts.idle_ms));
        assert_eq!([request(0), request(1), request(2)], [Some((2000, 0)), None, None]);
        let attempts: Vec<u32> = rules.iter().map(|rule| rule.retry.as_ref().map_or(0, |retry| retry.limit)).collect();
        assert_eq!(attempts, [0, crate::limits::PROFILE_RETRIES, 0]);
        assert_eq!(target.retry_budget.unwrap().ratio_permille, 100);
        let opaque = profile("demo", "  opaquePorts: ['80']");
        assert_eq!(told(&index(&[&service, &opaque])).protocol(), v1::Protocol::Opaque);
        let far = profile("other", "  opaquePorts: ['80']");
        assert_eq!(told(&index(&[&service, &far])).protocol(), v1::Protocol::Detect, "another namespace's word");
    }
}
