//! The part of JSON Schema that the chart's uses. Must never let through what helm, which knows all of it, would refuse.

use regex::Regex;
use serde_json::{Map, Value};

/// How alike a wrong name and a right one must be to be worth proposing (0 to 1).
const ALIKE: f64 = 0.75;

/// Everything that is wrong, each with its key and what is allowed.
pub(super) fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let root = Walk { root: schema, path: Vec::new() };
    root.check(schema, value, &mut problems);
    problems
}

/// The schema of the value at a path, where it has one.
pub(super) fn at<'a>(schema: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(schema, |schema, name| {
        let named = schema.get("properties").and_then(|properties| properties.get(name));
        named.or_else(|| schema.get("additionalProperties").filter(|other| other.is_object()))
    })
}

struct Walk<'a> {
    root: &'a Value,
    path: Vec<String>,
}

impl Walk<'_> {
    fn at(&self, name: &str) -> String {
        self.path.iter().map(String::as_str).chain([name]).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".")
    }

    fn inside(&self, name: &str) -> Walk<'_> {
        Walk { root: self.root, path: self.path.iter().cloned().chain([name.to_owned()]).collect() }
    }

    fn check(&self, schema: &Value, value: &Value, problems: &mut Vec<String>) {
        let problem = match value {
            _ if !is_of_type(schema, value) => Some(format!("{value} is not {}", allowed(schema))),
            Value::String(text) if !matches(schema, text) => Some(format!("{value} is not {}", allowed(schema))),
            Value::Number(number) if !in_range(schema, number) => Some(format!("{value} is not {}", allowed(schema))),
            _ => None,
        };
        if let Some(problem) = problem {
            problems.push(format!("{}: {problem}", self.at("")));
            return;
        }
        match value {
            Value::Object(map) => self.check_map(schema, map, problems),
            Value::Array(list) => {
                for (schema, (index, entry)) in schema.get("items").into_iter().cycle().zip(list.iter().enumerate()) {
                    self.inside(&index.to_string()).check(schema, entry, problems);
                }
            }
            _ => {}
        }
    }

    fn check_map(&self, schema: &Value, map: &Map<String, Value>, problems: &mut Vec<String>) {
        for (name, value) in map {
            let known = schema.get("properties").and_then(|properties| properties.get(name));
            match (known, schema.get("additionalProperties")) {
                (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                    self.inside(name).check(schema, value, problems);
                }
                (None, Some(Value::Bool(false))) => problems.push(self.unknown(schema, name)),
                (None, _) => {}
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                problems.push(format!("{} is missing", self.at(name)));
            }
        }
    }

    fn unknown(&self, schema: &Value, name: &str) -> String {
        let siblings: Vec<&String> =
            schema.get("properties").and_then(Value::as_object).map(|known| known.keys().collect()).unwrap_or_default();
        let key = self.at(name);
        let beside = siblings.iter().map(|known| (self.at(known), likeness(name, known)));
        // A name without the map that it is in: linkerdInject for compat.linkerdInject.
        let mut everywhere = Vec::new();
        keys(self.root, "", &mut everywhere);
        let elsewhere = everywhere.iter().map(|known| {
            let last = known.rsplit('.').next().unwrap_or_default();
            (known.clone(), likeness(name, last) - 0.05)
        });
        let best = beside.chain(elsewhere).max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, alike)| *alike >= ALIKE);
        match best {
            Some((known, _)) => format!("there is no value {key}: is {known} meant?"),
            None => {
                let known: Vec<&str> = siblings.iter().map(|known| known.as_str()).collect();
                format!("there is no value {key}: there are {}", known.join(", "))
            }
        }
    }
}

/// One slip of the finger is a slip however short the name is; else by Jaro and Winkler.
fn likeness(wrong: &str, right: &str) -> f64 {
    let (wrong, right) = (wrong.to_lowercase(), right.to_lowercase());
    if strsim::osa_distance(&wrong, &right) <= 1 { 1.0 } else { strsim::jaro_winkler(&wrong, &right) }
}

/// Keys of all values, with dots.
fn keys(schema: &Value, prefix: &str, found: &mut Vec<String>) {
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        keys(inner, &key, found);
        found.push(key);
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        _ => true,
    }
}

fn matches(schema: &Value, text: &str) -> bool {
    let listed = schema.get("enum").and_then(Value::as_array).is_none_or(|list| list.iter().any(|one| one == text));
    let pattern = schema.get("pattern").and_then(Value::as_str);
    // A pattern that is none lets nothing through.
    listed && pattern.is_none_or(|pattern| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text)))
}

fn in_range(schema: &Value, number: &serde_json::Number) -> bool {
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    let Some(number) = number.as_i64() else { return bound("minimum").or(bound("maximum")).is_none() };
    bound("minimum").is_none_or(|least| number >= least) && bound("maximum").is_none_or(|most| number <= most)
}

/// What a value must be, in words.
fn allowed(schema: &Value) -> String {
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return format!("one of {}", list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    }
    if let Some(description) = schema.get("description").and_then(Value::as_str) {
        return description.to_owned();
    }
    match (schema.get("type").and_then(Value::as_str), bound("minimum"), bound("maximum")) {
        (Some("integer"), Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
        (Some("integer"), ..) => "a whole number".to_owned(),
        (Some("boolean"), ..) => "true or false".to_owned(),
        (Some("array"), ..) => "a list".to_owned(),
        (Some("object"), ..) => "a map".to_owned(),
        (Some("string"), ..) => "a text".to_owned(),
        _ => "allowed here".to_owned(),
    }
}
