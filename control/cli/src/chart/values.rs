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

    /// Adds a file of values; `null` takes back what was set.
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

    /// All values.
    pub(super) fn over(&self, defaults: &Value) -> Value {
        let mut all = defaults.clone();
        merge(&mut all, self.0.clone());
        restore(&mut all, defaults);
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

/// Puts defaults where `null` stands; what has none goes.
fn restore(values: &mut Value, defaults: &Value) {
    let Value::Object(values) = values else { return };
    values.retain(|name, value| !value.is_null() || defaults.get(name).is_some());
    for (name, value) in values {
        let Some(default) = defaults.get(name) else { continue };
        if value.is_null() {
            *value = default.clone();
        } else {
            restore(value, default);
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
            let part: Map<String, Value> = part.collect();
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
        assert_eq!(overrides.over(&defaults), json!({"a": {"x": 1, "y": 2, "z": 3}, "l": [2], "d": 4}));
        assert!(overrides.file("[1]").is_err() && overrides.file("a: [").is_err());
    }

    #[test]
    fn null_is_the_default_again() {
        let mut overrides = Overrides::default();
        overrides.file("a: {x: 1, y: 2}\nb: 5").unwrap();
        overrides.file("a: {x: null, y: null}\nb: null").unwrap();
        assert_eq!(overrides.over(&json!({"a": {"x": 0}, "b": 1})), json!({"a": {"x": 0}, "b": 1}));
    }

    #[test]
    fn what_was_not_set_follows_the_next_versions_defaults() {
        let old = json!({"a": {"x": 0, "y": 0}, "l": [1], "b": true});
        let installed = json!({"a": {"x": 0, "y": 7}, "l": [1], "b": true});
        let overrides = Overrides::of_installed(&installed, &old);
        assert_eq!(overrides.0, json!({"a": {"y": 7}}));
        assert_eq!(overrides.over(&json!({"a": {"x": 5, "y": 5}, "l": [2]})), json!({"a": {"x": 5, "y": 7}, "l": [2]}));
        assert_eq!(Overrides::of_installed(&old, &old), Overrides::default());
    }
}
