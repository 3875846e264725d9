//! Evaluates templates as helm would. Must never print a value that helm would print otherwise: it refuses lists, maps and fractions instead.

use serde_json::Value;

use super::template::TemplateError;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipe),
    If { branches: Vec<(Pipe, Vec<Node>)>, otherwise: Vec<Node> },
}

/// A value and what is done with it.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) first: Term,
    pub(super) calls: Vec<Call>,
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Term {
    Value(Vec<String>),
    Namespace,
    AppVersion,
    File(String),
    Text(String),
}

/// A function of the template language.
#[derive(Debug)]
pub(super) enum Call {
    ToJson,
    Default(Term),
    Join(String),
}

/// What templates can see.
pub(super) struct Scope {
    values: Value,
    namespace: String,
    app_version: &'static str,
    file: (&'static str, &'static str),
}

impl Scope {
    /// `file`: name and content of the one file that templates may read.
    pub(super) fn new(
        values: Value,
        namespace: &str,
        app_version: &'static str,
        file: (&'static str, &'static str),
    ) -> Scope {
        Scope { values, namespace: namespace.to_owned(), app_version, file }
    }
}

/// The text of a template.
pub(super) fn render(nodes: &[Node], scope: &Scope) -> Result<String, TemplateError> {
    let mut text = String::new();
    write(nodes, scope, &mut text).map_err(|problem| TemplateError { template: "rendering".to_owned(), problem })?;
    Ok(text)
}

fn write(nodes: &[Node], scope: &Scope, out: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&printed(&evaluate(pipe, scope)?)?),
            Node::If { branches, otherwise } => {
                let mut chosen = otherwise;
                for (condition, nodes) in branches {
                    if is_true(&evaluate(condition, scope)?) {
                        chosen = nodes;
                        break;
                    }
                }
                write(chosen, scope, out)?;
            }
        }
    }
    Ok(())
}

fn evaluate(pipe: &Pipe, scope: &Scope) -> Result<Value, String> {
    let mut value = lookup(&pipe.first, scope)?;
    for call in &pipe.calls {
        value = match call {
            Call::ToJson => Value::String(go_json(&value)),
            Call::Default(other) if !is_true(&value) => lookup(other, scope)?,
            Call::Default(_) => value,
            Call::Join(between) => {
                let list = value.as_array().ok_or_else(|| format!("join of {value}, which is no list"))?;
                let texts: Result<Vec<String>, String> = list.iter().map(printed).collect();
                Value::String(texts?.join(between))
            }
        };
    }
    Ok(value)
}

fn lookup(term: &Term, scope: &Scope) -> Result<Value, String> {
    match term {
        Term::Namespace => Ok(Value::String(scope.namespace.clone())),
        Term::AppVersion => Ok(Value::String(scope.app_version.to_owned())),
        Term::Text(text) => Ok(Value::String(text.clone())),
        Term::File(name) if *name == scope.file.0 => Ok(Value::String(scope.file.1.to_owned())),
        Term::File(name) => Err(format!("there is no file {name:?}")),
        Term::Value(path) => {
            let found = path.iter().try_fold(&scope.values, |value, name| value.get(name));
            found.cloned().ok_or_else(|| format!("there is no value .Values.{}", path.join(".")))
        }
    }
}

/// Go's truth: everything but false, zero and what is empty.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn printed(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(set) => Ok(set.to_string()),
        // Helm prints a million as 1e+06 when it comes from a file, and as 1000000 when it comes from --set.
        Value::Number(number) if number.as_i64().is_some_and(|number| number.abs() < 1_000_000) => {
            Ok(number.to_string())
        }
        other => Err(format!("{other} cannot be printed as it is: use toJson")),
    }
}

/// As Go's encoding/json writes it: maps sorted (as ours are), and what could end a script in HTML escaped.
fn go_json(value: &Value) -> String {
    let plain = value.to_string();
    let mut text = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::template::parse, *};

    fn shown(text: &str) -> Result<String, String> {
        let values = json!({
            "yes": true, "no": false, "zero": 0, "two": 2, "empty": "", "text": "a<b", "list": ["x", "y"],
            "none": [], "map": {"b": "1", "a": {"c": 2}}, "half": 0.5, "big": 1_000_000,
        });
        let scope = Scope::new(values, "ns", "1.2.3", ("f", "content\n"));
        let nodes = parse("t", text).map_err(|error| error.to_string())?;
        render(&nodes, &scope).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_printed_as_go_prints_them() {
        for (text, expected) in [
            ("{{ .Values.text }} {{ .Values.yes }} {{ .Values.two }}", "a<b true 2"),
            ("{{ .Values.text | toJson }}", r#""a\u003cb""#),
            ("{{ .Values.map | toJson }}", r#"{"a":{"c":2},"b":"1"}"#),
            ("{{ .Values.map | toJson | toJson }}", r#""{\"a\":{\"c\":2},\"b\":\"1\"}""#),
            ("{{ .Values.list | join \",\" }}", "x,y"),
            ("{{ .Values.empty | default .Chart.AppVersion }}", "1.2.3"),
            ("{{ .Values.text | default \"z\" }}", "a<b"),
            ("{{ .Release.Namespace }}{{ .Files.Get \"f\" | toJson }}", r#"ns"content\n""#),
            ("{{ .Values.half | toJson }}", "0.5"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn conditions_and_white_space() {
        for (text, expected) in [
            ("a\n{{- if .Values.yes }}\nb\n{{- end }}\nc", "a\nb\nc"),
            ("a\n{{- if .Values.no }}\nb\n{{- end }}\nc", "a\nc"),
            ("{{ if .Values.zero }}1{{ else if .Values.none }}2{{ else if .Values.two }}3{{ else }}4{{ end }}", "3"),
            ("{{ if .Values.empty }}1{{ else }}{{ if .Values.map }}2{{ end }}{{ end }}", "2"),
            ("a {{- /* why */ -}}\n b", "ab"),
            ("a {{ .Values.two -}}\n\n b", "a 2b"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_helm_would_print_otherwise_is_refused() {
        for text in [
            "{{ .Values.absent }}",
            "{{ .Values.map }}",
            "{{ .Values.list }}",
            "{{ .Values.half }}",
            "{{ .Values.big }}",
            "{{ .Values.text | join \",\" }}",
            "{{ .Files.Get \"other\" }}",
        ] {
            assert!(shown(text).is_err(), "{text}: {:?}", shown(text));
        }
    }
}
