//! What people set, over the chart's defaults. Must never keep a default as if it had been set: the next version may have another.

use serde_json::{Map, Value};

use super::{ChartError, schema, set};

/// What differs from the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overrides(Value);

impl Default for Overrides {
    fn default() -> Overrides {
        Overrides(Value::Object(Map::new()))
    }
}

impl Overrides {
    /// What was set in an installation that was rendered with `values` when the defaults were `defaults`.
    pub(crate) fn of_installed(values: &Value, defaults: &Value) -> Overrides {
        Overrides(changed(values, defaults).unwrap_or_else(|| Value::Object(Map::new())))
    }

    /// Adds a file of values; see `over` for `null`.
    pub(crate) fn file(&mut self, text: &str) -> Result<(), ChartError> {
        let values = serde_yaml_ng::from_str(text).map_err(|error| ChartError::Values(vec![error.to_string()]))?;
        match values {
            Value::Null => Ok(()),
            Value::Object(_) => {
                merge(&mut self.0, values);
                Ok(())
            }
            _ => Err(ChartError::Values(vec!["not a map of values".to_owned()])),
        }
    }

    /// Adds `key=value`, or several with commas between them, as helm's `--set`.
    pub(crate) fn set(&mut self, text: &str) -> Result<(), ChartError> {
        let schema = schema()?;
        for (path, given) in set::parse(text)? {
            let value = set::value(&given, schema::at(&schema, &path))
                .map_err(|problem| ChartError::Values(vec![format!("{}: {problem}", path.join("."))]))?;
            let nested =
                path.iter().rev().fold(value, |inner, name| Value::Object(Map::from_iter([(name.clone(), inner)])));
            merge(&mut self.0, nested);
        }
        Ok(())
    }

    /// All values. A `null` deletes its key, as in helm; where the schema wants the key, which helm refuses, its default is back.
    pub(super) fn over(&self, defaults: &Value, schema: &Value) -> Value {
        let mut all = defaults.clone();
        merge(&mut all, self.0.clone());
        settle(&mut all, defaults, schema);
        all
    }
}

/// Maps are merged, all else is replaced.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

/// Leaves no `null` where there are defaults.
fn settle(values: &mut Value, defaults: &Value, schema: &Value) {
    let (Value::Object(values), Value::Object(defaults)) = (values, defaults) else { return };
    let wanted = schema.get("required").and_then(Value::as_array);
    let is_wanted = |name: &str| wanted.is_some_and(|wanted| wanted.iter().any(|one| one == name));
    values.retain(|name, value| !value.is_null() || (is_wanted(name) && defaults.contains_key(name)));
    for (name, value) in values {
        let Some(default) = defaults.get(name) else { continue };
        if value.is_null() {
            *value = default.clone();
        } else {
            settle(
                value,
                default,
                schema.pointer("/properties").and_then(|known| known.get(name)).unwrap_or(&Value::Null),
            );
        }
    }
}

/// The part of `values` that is not as in `defaults`; `None`: all of it is.
fn changed(values: &Value, defaults: &Value) -> Option<Value> {
    match (values, defaults) {
        (Value::Object(values), Value::Object(defaults)) => {
            let part = values.iter().filter_map(|(name, value)| {
                let different = match defaults.get(name) {
                    Some(default) => changed(value, default),
                    None => Some(value.clone()),
                };
                different.map(|value| (name.clone(), value))
            });
            let deleted = defaults.keys().filter(|name| !values.contains_key(*name));
            let part: Map<String, Value> = part.chain(deleted.map(|name| (name.clone(), Value::Null))).collect();
            (!part.is_empty()).then_some(Value::Object(part))
        }
        (values, defaults) => (values != defaults).then(|| values.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_are_merged_and_lists_replaced() {
        let mut overrides = Overrides::default();
        overrides.file("a: {x: 1}\nl: [1]").unwrap();
        overrides.file("a: {y: 2}\nl: [2]\n").unwrap();
        overrides.file("").unwrap();
        let defaults = json!({"a": {"x": 0, "z": 3}, "l": [0, 0], "d": 4});
        assert_eq!(overrides.over(&defaults, &Value::Null), json!({"a": {"x": 1, "y": 2, "z": 3}, "l": [2], "d": 4}));
        assert!(overrides.file("[1]").is_err() && overrides.file("a: [").is_err());
    }

    #[test]
    fn null_deletes_a_key_and_of_one_that_must_be_there_the_default_is_back() {
        let schema = json!({"required": ["a", "b"], "properties": {"a": {"required": ["z"]}}});
        let mut overrides = Overrides::default();
        overrides.file("a: {x: 1, y: 2, z: 3}\nb: 5").unwrap();
        overrides.file("a: {x: null, y: null, z: null}\nb: null").unwrap();
        let defaults = json!({"a": {"x": 0, "z": 7}, "b": 1});
        assert_eq!(overrides.over(&defaults, &schema), json!({"a": {"z": 7}, "b": 1}));
        let installed = overrides.over(&defaults, &schema);
        let again = Overrides::of_installed(&installed, &defaults);
        assert_eq!(again.over(&defaults, &schema), installed, "what was deleted stays so");
    }

    #[test]
    fn what_was_not_set_follows_the_next_versions_defaults() {
        let old = json!({"a": {"x": 0, "y": 0}, "l": [1], "b": true});
        let installed = json!({"a": {"x": 0, "y": 7}, "l": [1], "b": true});
        let overrides = Overrides::of_installed(&installed, &old);
        assert_eq!(overrides.0, json!({"a": {"y": 7}}));
        let new = json!({"a": {"x": 5, "y": 5}, "l": [2]});
        assert_eq!(overrides.over(&new, &Value::Null), json!({"a": {"x": 5, "y": 7}, "l": [2]}));
        assert_eq!(Overrides::of_installed(&old, &old), Overrides::default());
    }
}
