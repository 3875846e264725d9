//! Which ServiceProfile or TrafficSplit stands for whom: instead of all routes, as with Linkerd. Must never let a route and a profile hold for
//! the same clients.

use std::{collections::HashMap, sync::Arc};

use weir_core::route::Size;

use crate::objects::{HttpRoute, Kind, Name, ObjectName, Override};

/// Of one Service, by namespace of the objects.
#[derive(Debug, Default)]
pub(super) struct Profiles<'a> {
    by_namespace: HashMap<&'a str, Standing<'a>>,
}

/// What holds of what one namespace says.
#[derive(Clone, Copy, Debug)]
struct Standing<'a> {
    own: &'a ObjectName,
    overrides: &'a [Override],
    /// The split whose shares the profile takes.
    merged: Option<&'a ObjectName>,
}

#[derive(Clone, Copy, Debug)]
struct Held<'a> {
    own: &'a ObjectName,
    route: &'a HttpRoute,
}

impl<'a> Held<'a> {
    fn alone(self) -> Standing<'a> {
        Standing { own: self.own, overrides: self.route.overrides(), merged: None }
    }

    /// A profile without shares of its own takes the split's (Linkerd's extension writes them into it), where nodes take all its rules with them.
    fn with(self, split: Held<'a>) -> Standing<'a> {
        if !self.route.overrides().is_empty() {
            return self.alone();
        }
        let shares = Size { targets: self.route.rules.len() * split.route.overrides().len(), ..Size::default() };
        if !self.route.size().and(shares).fits() {
            // Of routes and shares, shares: a version that is to get no requests must get none.
            return split.alone();
        }
        Standing { own: self.own, overrides: split.route.overrides(), merged: Some(split.own) }
    }
}

impl<'a> Profiles<'a> {
    /// Of routes in order of their age.
    pub(super) fn of(routes: &[(&'a ObjectName, &'a Arc<HttpRoute>)]) -> Profiles<'a> {
        let (mut profiles, mut splits): (HashMap<&str, Held<'_>>, HashMap<&str, Held<'_>>) = Default::default();
        for (own, route) in routes {
            if route.profile.as_ref().is_some_and(|profile| profile.decides()) {
                let held = if own.kind == Kind::ServiceProfile { &mut profiles } else { &mut splits };
                held.entry(&own.name.namespace).or_insert(Held { own, route });
            }
        }
        let mut by_namespace: HashMap<&str, Standing<'_>> =
            splits.iter().map(|(namespace, split)| (*namespace, split.alone())).collect();
        for (namespace, profile) in profiles {
            let standing = splits.get(namespace).map_or_else(|| profile.alone(), |split| profile.with(*split));
            by_namespace.insert(namespace, standing);
        }
        Profiles { by_namespace }
    }

    /// Why an object says nothing about requests to a Service, if that is so for something said here; for people.
    pub(super) fn aside(&self, own: &ObjectName, route: &HttpRoute, service: &Name) -> Option<String> {
        let of = |namespace: &str| self.by_namespace.get(namespace);
        let Some(profile) = &route.profile else {
            let standing = of(&own.name.namespace).or_else(|| of(&service.namespace));
            return standing.map(|one| format!("{} stands instead of all routes of Service {service}", one.own));
        };
        if !profile.decides() {
            return Some("it has neither routes nor dstOverrides, and leaves requests to others".to_owned());
        }
        let Standing { own: instead, merged, .. } = of(&own.name.namespace)?;
        let is_merged = *merged == Some(own);
        let said = if is_merged { "its weights are in force by it" } else { "stands instead" };
        (*instead != own).then(|| format!("{instead}: {said}"))
    }

    /// Where the requests go of which an object decides; empty: to the Service itself.
    pub(super) fn overrides(&self, own: &ObjectName) -> &'a [Override] {
        self.by_namespace.get(&*own.name.namespace).map(|one| one.overrides).unwrap_or_default()
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

    /// Else nodes would refuse all of the Service. Seen to fail without the look at their size.
    #[test]
    fn a_profile_that_is_too_large_with_a_splits_shares_stands_back() {
        let routes: Vec<String> = (0..2_000).map(|at| format!("{{name: r{at}, condition: {{method: GET}}}}")).collect();
        let large = profile("demo", &format!("  routes: [{}]", routes.join(", ")));
        let shares = ["{service: canary, weight: 1}"; 11].join(", ");
        let split = split("a", "demo", "web").replace("{service: web, weight: 1}", &shares);
        assert_eq!(shown(&index(&[SERVICE, &large, &split])), ["TrafficSplit demo/a"]);
    }

    /// What a profile says of its Service is told with each Service whose routes lead there. Seen to fail when the former alone was looked at.
    #[test]
    fn a_backends_profile_is_told_with_those_that_lead_to_it() {
        let canary = SERVICE.replace("name: web", "name: canary").replace("10.96.0.1", "10.96.0.2");
        let to = "  rules: [{backendRefs: [{name: canary, port: 80}]}]";
        let mut index = index(&[SERVICE, &canary, &route("main", "demo", to)]);
        let opaque = profile("demo", "  opaquePorts: ['80']").replace("web.demo", "canary.demo");
        let changed = upsert(&mut index, &opaque);
        assert!(changed.addresses.contains(&"10.96.0.1".parse().unwrap()), "{changed:?}");
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
        let parsed = crate::parse::manifest("test.yaml", &far, &crate::fixtures::options());
        assert_eq!((parsed.findings.len(), parsed.findings[0].field.as_str()), (1, "spec.opaquePorts"));
        let mut index = index(&[&service]);
        index.apply(
            parsed.objects.into_iter().map(|(name, object)| crate::objects::Event::Upsert(name, object)).collect(),
        );
        assert_eq!(told(&index).protocol(), v1::Protocol::Detect, "another namespace's word");
    }

    /// All of what holds is one profile's. Seen to fail with the last by name.
    #[test]
    fn of_two_profiles_the_oldest_says_everything() {
        let one = |domain: &str, created: &str, port: u16| {
            let spec = format!("  routes: [{{name: r{port}, condition: {{method: GET}}}}]\n  opaquePorts: ['{port}']");
            let named = profile("demo", &spec).replace("svc.cluster.local", &format!("svc.{domain}"));
            named.replace("namespace: demo}", &format!("namespace: demo, creationTimestamp: '{created}'}}"))
        };
        let younger = one("zone.example", "2026-02-01T00:00:00Z", 80);
        let older = one("corp.example", "2026-01-01T00:00:00Z", 81);
        for objects in [[SERVICE, &younger, &older], [SERVICE, &older, &younger]] {
            let target = told(&index(&objects));
            assert_eq!(target.protocol(), v1::Protocol::Detect);
            assert_eq!(target.http_routes[0].rules[0].name, "r81");
        }
    }
}
