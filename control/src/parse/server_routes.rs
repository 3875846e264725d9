//! Routes that have a Server as a parent. Must never leave one out: a Server without routes takes all requests alike.

use std::sync::Arc;

use weir_api::v1;

use super::{FieldError, fields, settings};
use crate::objects::{HttpRoute, Name, Object, RouteFilter, RouteRule};

/// The group is Linkerd's own default.
pub(super) fn is_server(parent: &fields::ParentRef) -> bool {
    matches!(parent.group.as_deref(), None | Some("policy.linkerd.io")) && parent.kind.as_deref() == Some("Server")
}

/// Of a route of Servers that is not understood nothing is kept: it stands there, and nothing falls under it. Without it its Servers might have no
/// routes at all, and all requests would be alike.
pub(super) fn closing(
    route: HttpRoute,
    mut flaws: Vec<FieldError>,
    errors: Vec<FieldError>,
) -> (Object, Vec<FieldError>) {
    let nothing = "no request to its Servers falls under it";
    flaws.extend(errors.into_iter().map(|flaw| settings::meanwhile(flaw.field, &flaw.reason, nothing)));
    let route = HttpRoute { parents: Vec::new(), hostnames: Vec::new(), rules: Vec::new(), ..route };
    (Object::HttpRoute(Arc::new(route)), flaws)
}

/// The same of one whose fields have other types than they should; none where it has no Server as a parent.
pub(super) fn broken(given: &fields::RouteParents, error: FieldError) -> Result<(Object, FieldError), FieldError> {
    let namespace = given.metadata.namespace.as_deref().unwrap_or("default");
    let servers = server_parents(namespace, given.spec.parent_refs.as_deref(), &mut Vec::new());
    if servers.is_empty() {
        return Err(error);
    }
    let route = HttpRoute {
        created: Arc::from(given.metadata.creation_timestamp.as_deref().unwrap_or_default()),
        generation: given.metadata.generation.unwrap_or_default(),
        parents: Vec::new(),
        servers,
        hostnames: Vec::new(),
        rules: Vec::new(),
        level: v1::RouteLevel::Requests,
        timeouts: None,
        retry: None,
        annotated: Vec::new(),
        profile: None,
    };
    let (object, flaws) = closing(route, Vec::new(), vec![error]);
    flaws.into_iter().next().map(|flaw| (object, flaw)).ok_or_else(|| FieldError::new("", "not understood"))
}

/// Servers that are parents: they are in the route's own namespace (Linkerd), others' pods are not its to speak of.
pub(super) fn server_parents(
    namespace: &str,
    given: Option<&[fields::ParentRef]>,
    errors: &mut Vec<FieldError>,
) -> Vec<Name> {
    let mut servers = Vec::new();
    for (at, parent) in given.unwrap_or_default().iter().enumerate().filter(|(_, parent)| is_server(parent)) {
        if parent.namespace.as_deref().is_some_and(|of| !of.is_empty() && of != namespace) {
            let reason = "a Server has to be in the route's own namespace";
            errors.push(FieldError::new(format!("spec.parentRefs[{at}].namespace"), reason));
            continue;
        }
        let name = Name::new(namespace, &parent.name);
        if !servers.contains(&name) {
            servers.push(name);
        }
    }
    servers
}

/// A Server's requests are at their pod already: there is nowhere else to send copies from.
pub(super) fn unmirrored(route: &HttpRoute, errors: &mut Vec<FieldError>) {
    let has_mirror = |rule: &RouteRule| rule.filters.iter().any(|filter| matches!(filter, RouteFilter::Mirror(_)));
    if let Some(at) = route.rules.iter().position(has_mirror).filter(|_| !route.servers.is_empty()) {
        errors.push(FieldError::new(
            format!("spec.rules[{at}].filters"),
            "RequestMirror is not possible with a Server as a parent",
        ));
    }
}
