//! Rendered text as objects. Must never drop a document that is not empty.

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{ChartError, Stage};

/// One object, as text with its comments and as a value.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) stage: Stage,
    pub(crate) text: String,
    pub(crate) value: Value,
}

/// What names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    /// Empty: of the whole cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Object {
    /// Its name and kind.
    pub(crate) fn reference(&self) -> Reference {
        let text = |pointer: &str| self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Reference {
            api_version: text("/apiVersion"),
            kind: text("/kind"),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        }
    }
}

impl Reference {
    /// API group; empty: core.
    pub(crate) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Just enough for `kubectl delete -f -`.
    pub(crate) fn value(&self) -> Value {
        let mut value = json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": self.name}});
        if !self.namespace.is_empty() {
            value["metadata"]["namespace"] = json!(self.namespace);
        }
        value
    }
}

/// The objects of one rendered template.
pub(super) fn split(stage: Stage, name: &'static str, rendered: &str) -> Result<Vec<Object>, ChartError> {
    let damaged = |error: serde_yaml_ng::Error| ChartError::Chart(name, error.to_string());
    let mut objects = Vec::new();
    let mut text = String::new();
    for line in rendered.lines().chain(["---"]) {
        if line != "---" {
            text.push_str(line);
            text.push('\n');
            continue;
        }
        let value = Value::deserialize(serde_yaml_ng::Deserializer::from_str(&text)).map_err(damaged)?;
        if !value.is_null() {
            objects.push(Object { stage, text: text.trim_matches('\n').to_owned(), value });
        }
        text.clear();
    }
    Ok(objects)
}
