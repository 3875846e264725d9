//! SMI's TrafficSplits, as Linkerd's extension reads them. Must never send a share elsewhere than it is written.

use super::{
    FieldError,
    convert::Outcome,
    fields,
    profiles::{default, few, of_profile, service_of, weight},
    quoted, routes,
};
use crate::objects::{Name, Override, Profile};

/// Reads one.
pub(super) fn traffic_split(given: &fields::TrafficSplit) -> Outcome<FieldError> {
    let namespace = given.metadata.namespace.as_deref().unwrap_or("default");
    let Some(spec) = &given.spec else { return Err(vec![FieldError::new("spec", "missing")]) };
    let mut errors = Vec::new();
    if spec.matches.as_ref().is_some_and(|matches| !matches.is_empty()) {
        let reason = "is not followed: an HTTPRoute can say which requests are meant";
        errors.push(FieldError::new("spec.matches", reason));
    }
    let service = named(namespace, "spec.service", &spec.service, &mut errors);
    let mut overrides = Vec::new();
    for (at, given) in spec.backends.iter().flatten().enumerate() {
        let field = format!("spec.backends[{at}]");
        let service = named(namespace, &format!("{field}.service"), &given.service, &mut errors);
        let weight = weight(&field, given.weight.as_ref(), &mut errors);
        overrides.push(Override { service, port: None, weight });
    }
    if overrides.is_empty() {
        errors.push(FieldError::new("spec.backends", "names none: where are the requests to go?"));
    }
    few("spec.backends", overrides.len(), &mut errors);
    let profile = Profile { overrides, ..Profile::default() };
    routes::checked(of_profile(&given.metadata, service, vec![default()], profile), Vec::new(), errors)
}

/// A Service of the same namespace by its name, or any by its whole name.
fn named(namespace: &str, field: &str, text: &str, errors: &mut Vec<FieldError>) -> Name {
    let is_short = !text.is_empty() && !text.contains('.');
    let name = if is_short { Some(Name::new(namespace, text)) } else { service_of(text) };
    name.unwrap_or_else(|| {
        errors.push(FieldError::new(field, format!("{} is no Service's name", quoted(text))));
        Name::new(namespace, "")
    })
}
