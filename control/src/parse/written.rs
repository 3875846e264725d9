//! Manifests that somebody wants written, one object each, as they were given. Must never add to an object what its author did not write.

use serde::Deserialize as _;
use serde_json::Value;
use serde_yaml_ng::{Deserializer, Value as Yaml};

use super::{document, quoted};
use crate::{
    limits,
    objects::{Kind, Name, ObjectName},
};

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// What it is; `None` for a kind that is not written here.
    pub name: Option<ObjectName>,
    /// `apiVersion`, without the group.
    pub version: String,
    /// As its author names it, for people.
    pub shown: String,
    /// All of it.
    pub value: Value,
}

/// Kinds that are written through the mesh API: what says where requests go, and Services for their annotations.
fn is_written(kind: Kind) -> bool {
    kind.is_route() || kind == Kind::Service
}

/// Reads them all, or none.
///
/// # Errors
/// What cannot even be named, with its place.
pub fn written(text: &str) -> Result<Vec<Written>, String> {
    let mut all = Vec::new();
    for document in document::split(text) {
        let line = document.line();
        let place = |reason: String| format!("manifests:{line}: {reason}");
        let value =
            Yaml::deserialize(Deserializer::from_str(document.text())).map_err(|error| place(error.to_string()))?;
        // Kubernetes has no other keys than strings, and no tags.
        let value = serde_json::to_value(value).map_err(|error| place(error.to_string()))?;
        let items = match value.get("items").and_then(Value::as_array) {
            Some(items) if text_of(&value, "kind").ends_with("List") => items.clone(),
            _one => vec![value],
        };
        for item in items {
            all.push(one(item).map_err(place)?);
        }
        if all.len() > limits::APPLIED_OBJECTS {
            return Err(place(format!("more than {} objects: write them in several calls", limits::APPLIED_OBJECTS)));
        }
    }
    if all.is_empty() {
        return Err("manifests: there is no object in them".to_owned());
    }
    Ok(all)
}

/// A name of an object (RFC 1123): what may stand in a path as it is.
pub fn is_subdomain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.bytes().next().zip(text.bytes().last());
    text.len() <= 253
        && ends.is_some_and(|(first, last)| is_plain(first) && is_plain(last))
        && text.bytes().all(|byte| is_plain(byte) || matches!(byte, b'-' | b'.'))
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn one(value: Value) -> Result<Written, String> {
    let (api_version, kind) = (text_of(&value, "apiVersion"), text_of(&value, "kind"));
    let metadata = value.get("metadata").unwrap_or(&Value::Null);
    let (namespace, own) = (text_of(metadata, "namespace"), text_of(metadata, "name"));
    let missing = [("apiVersion", api_version), ("kind", kind), ("metadata.name", own)];
    if let Some((field, _empty)) = missing.into_iter().find(|(_field, text)| text.is_empty()) {
        let object = if kind.is_empty() { String::new() } else { format!("{} {}: ", quoted(kind), quoted(own)) };
        return Err(format!("{object}{field}: missing"));
    }
    let version = api_version.rsplit('/').next().unwrap_or(api_version).to_owned();
    // They become parts of a path.
    let unfit = [("metadata.name", own), ("metadata.namespace", namespace), ("apiVersion", &version)];
    let unfit = unfit.into_iter().find(|(_field, text)| !text.is_empty() && !is_subdomain(text));
    if let Some((field, text)) = unfit {
        return Err(format!("{} {}: {field}: {} is no DNS subdomain name", quoted(kind), quoted(own), quoted(text)));
    }
    let known = Kind::of(api_version, kind).filter(|kind| is_written(*kind));
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    let shown = format!("{} {}", quoted(&format!("{api_version}/{kind}")), quoted(&format!("{namespace}/{own}")));
    let name = known.map(|kind| ObjectName { kind, name: Name::new(namespace, own) });
    Ok(Written { name, version, shown, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str =
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec: {rules: []}\n";

    #[test]
    fn objects_are_told_by_kind_and_name_and_kept_as_they_are() {
        let text = format!(
            "# one\n---\n{ROUTE}---\napiVersion: v1\nkind: List\nitems: [{{apiVersion: v1, kind: Secret, metadata: {{name: a, namespace: b}}}}]\n"
        );
        let all = written(&text).unwrap();
        let names: Vec<_> = all.iter().map(|one| one.name.as_ref().map(ToString::to_string)).collect();
        assert_eq!(names, [Some("HTTPRoute default/web".to_owned()), None]);
        assert_eq!((all[0].version.as_str(), &all[0].value["spec"]), ("v1", &serde_json::json!({"rules": []})));
        assert_eq!(all[1].shown, r#""v1/Secret" "b/a""#);
    }

    #[test]
    fn what_cannot_be_named_refuses_everything_with_its_line() {
        let many = ROUTE.to_owned() + "---\n";
        for (text, why) in [
            ("", "no object"),
            ("kind: [", "manifests:1:"),
            (
                &format!("{ROUTE}---\nkind: HTTPRoute\nmetadata: {{name: a}}\n"),
                "manifests:6: \"HTTPRoute\" \"a\": apiVersion: missing",
            ),
            ("apiVersion: v1\nkind: Service\n", "metadata.name: missing"),
            (&ROUTE.replace("name: web", "name: ../../secrets/web"), "metadata.name: \"../../secrets/web\" is no DNS"),
            (&ROUTE.replace("name: web", "name: web, namespace: \"a?b\""), "metadata.namespace: "),
            (&ROUTE.replace("io/v1", "io/v1?dryRun=All"), "apiVersion: "),
            (&many.repeat(limits::APPLIED_OBJECTS + 1), "write them in several calls"),
        ] {
            let refusal = written(text).unwrap_err();
            assert!(refusal.contains(why), "{why} in {refusal}");
        }
    }
}
