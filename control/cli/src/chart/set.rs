//! `--set`, in helm's notation: `a.b=1,c.d=text,list={x,y}`, with `\` before a dot, comma or brace that is meant as it stands.
//!
//! Must never guess a type where the schema says which one it is.

use serde_json::Value;

/// What cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--set {text:?}: {problem}")]
pub(crate) struct SetError {
    text: String,
    problem: &'static str,
}

/// Keys and what they are set to.
pub(super) fn parse(text: &str) -> Result<Vec<(Vec<String>, String)>, SetError> {
    let wrong = |problem| SetError { text: text.to_owned(), problem };
    let mut pairs = Vec::new();
    for part in split(text, ',').map_err(wrong)? {
        let equals = position(&part, '=').ok_or_else(|| wrong("write it as key=value"))?;
        let (key, value) = (&part[..equals], &part[equals + 1..]);
        if key.contains('[') {
            return Err(wrong("one entry of a list cannot be set: give the whole list, as key={a,b}"));
        }
        let path: Vec<String> = split(key, '.').map_err(wrong)?.iter().map(|name| plain(name)).collect();
        if path.iter().any(String::is_empty) {
            return Err(wrong("a part of the key is empty"));
        }
        pairs.push((path, value.to_owned()));
    }
    Ok(pairs)
}

/// The value of a text, of the type that the schema wants. Without one: as helm guesses.
pub(super) fn value(given: &str, schema: Option<&Value>) -> Result<Value, String> {
    if given == "null" {
        return Ok(Value::Null);
    }
    let wanted = schema.and_then(|schema| schema.get("type")).and_then(Value::as_str);
    match wanted {
        Some("string") => Ok(Value::String(plain(given))),
        Some("array") if given.starts_with('{') => list(given),
        Some("array" | "object") => serde_json::from_str(given)
            .map_err(|error| format!("{given:?} is neither a list as {{a,b}} nor JSON: {error}")),
        _ => Ok(guess(given)),
    }
}

/// Helm's `{a,b}`.
fn list(given: &str) -> Result<Value, String> {
    let inner = given.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let inner = inner.ok_or_else(|| format!("{given:?} is no list: write it as {{a,b}}"))?;
    let entries = if inner.is_empty() { Vec::new() } else { split(inner, ',').map_err(str::to_owned)? };
    Ok(Value::Array(entries.iter().map(|entry| guess(entry)).collect()))
}

fn guess(given: &str) -> Value {
    match given {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        // As helm: a zero in front makes it a text.
        _ if given == "0" || !given.starts_with('0') => {
            given.parse::<i64>().map_or_else(|_text| Value::String(plain(given)), Value::from)
        }
        _ => Value::String(plain(given)),
    }
}

/// Parts between separators that are neither escaped nor inside braces, brackets or quotes.
fn split(text: &str, separator: char) -> Result<Vec<String>, &'static str> {
    let mut parts = vec![String::new()];
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    for character in text.chars() {
        if character == separator && depth == 0 && !quoted && !escaped {
            parts.push(String::new());
            continue;
        }
        match character {
            _ if escaped => {}
            '"' if depth > 0 => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth = depth.checked_sub(1).ok_or("a brace closes nothing")?,
            _ => {}
        }
        escaped = character == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    if depth > 0 { Err("a brace is open") } else { Ok(parts) }
}

fn position(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let found = character == wanted && !escaped;
        escaped = character == '\\' && !escaped;
        found.then_some(at)
    })
}

/// Without the backslashes.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|(path, value)| (path.join("|"), value)).collect()
    }

    #[test]
    fn helms_notation() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs("a.b=1,c=x=y"), [pair("a|b", "1"), pair("c", "x=y")]);
        assert_eq!(
            pairs(r"s.kubernetes\.io/os=a\,b,t={x,y}"),
            [pair("s|kubernetes.io/os", r"a\,b"), pair("t", "{x,y}")]
        );
        assert_eq!(pairs(r#"t=[{"a":"}"},{"b":1}],c="#), [pair("t", r#"[{"a":"}"},{"b":1}]"#), pair("c", "")]);
        for wrong in ["a", "a.=1", "=1", "a[0]=1", "a={x", "a=x}", "a=1,,b=2", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn types_come_from_the_schema_or_as_helm_guesses() {
        let (text, list) = (json!({"type": "string"}), json!({"type": "array"}));
        assert_eq!(value("1", Some(&text)), Ok(json!("1")));
        assert_eq!(value(r"a\,b", Some(&text)), Ok(json!("a,b")));
        assert_eq!(value("{a,1}", Some(&list)), Ok(json!(["a", 1])));
        assert_eq!(value("{}", Some(&list)), Ok(json!([])));
        assert_eq!(value(r#"[{"port":1}]"#, Some(&list)), Ok(json!([{"port": 1}])));
        assert_eq!(value(r#"{"a":"b"}"#, Some(&json!({"type": "object"}))), Ok(json!({"a": "b"})));
        assert!(value("x", Some(&list)).is_err());
        let guesses = ["1", "0", "007", "-3", "true", "0.5", "x", "null"].map(|given| value(given, None).unwrap());
        let expected =
            [json!(1), json!(0), json!("007"), json!(-3), json!(true), json!("0.5"), json!("x"), json!(null)];
        assert_eq!(guesses, expected);
    }
}
