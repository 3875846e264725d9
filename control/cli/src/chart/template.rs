//! The part of Go's template language that the chart uses, and nothing else: what this does not know is refused, not guessed.
//!
//! ```text
//! {{ PIPE }}   {{ if PIPE }}…{{ else if PIPE }}…{{ else }}…{{ end }}   {{/* … */}}   each with {{- and -}}
//! PIPE: TERM | FUNCTION | FUNCTION…     TERM: .Values.a.b  .Release.Namespace  .Chart.AppVersion  .Files.Get "name"  "text"
//! FUNCTION: toJson  default TERM  join "text"
//! ```

use super::render::{Call, Node, Pipe, Term};

/// A template that this is not made for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template}: {problem}")]
pub(crate) struct TemplateError {
    pub(super) template: String,
    pub(super) problem: String,
}

enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// Reads a template.
pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Node>, TemplateError> {
    let wrong = |problem: String| TemplateError { template: name.to_owned(), problem };
    let pieces = pieces(text).map_err(wrong)?;
    let mut pieces = pieces.into_iter();
    match block(&mut pieces).map_err(wrong)? {
        (nodes, None) => Ok(nodes),
        (_, Some(end)) => Err(wrong(format!("{{{{ {end} }}}} ends nothing"))),
    }
}

/// Text and actions in turn; `{{-` and `-}}` have taken the white space beside them.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trimmed = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").ok_or("{{ without }}")?;
        let before = if trimmed { before.trim_start() } else { before };
        let (before, action) = match action.strip_prefix("- ").or_else(|| action.strip_prefix("-\n")) {
            Some(action) => (before.trim_end(), action),
            None => (before, action),
        };
        let (action, trims) = match action.strip_suffix(" -") {
            Some(action) => (action, true),
            None => (action, false),
        };
        pieces.push(Piece::Text(before));
        if !(action.trim().starts_with("/*") && action.trim().ends_with("*/")) {
            pieces.push(Piece::Action(action.trim()));
        }
        trimmed = trims;
        rest = after;
    }
    pieces.push(Piece::Text(if trimmed { rest.trim_start() } else { rest }));
    Ok(pieces)
}

/// Nodes up to the end of the text, or to what ends or continues a condition.
fn block<'a>(pieces: &mut impl Iterator<Item = Piece<'a>>) -> Result<(Vec<Node>, Option<&'a str>), String> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Text(text) => nodes.push(Node::Text(text.to_owned())),
            Piece::Action(action) => match action.split_once(' ').unwrap_or((action, "")) {
                ("end" | "else", _) => return Ok((nodes, Some(action))),
                ("if", condition) => nodes.push(condition_of(condition, pieces)?),
                _ => nodes.push(Node::Print(pipe(action)?)),
            },
        }
    }
    Ok((nodes, None))
}

fn condition_of<'a>(first: &str, pieces: &mut impl Iterator<Item = Piece<'a>>) -> Result<Node, String> {
    let mut branches = Vec::new();
    let mut condition = Some(pipe(first)?);
    let mut otherwise = Vec::new();
    loop {
        let (nodes, end) = block(pieces)?;
        match condition.take() {
            Some(condition) => branches.push((condition, nodes)),
            None => otherwise = nodes,
        }
        match end {
            Some("end") => return Ok(Node::If { branches, otherwise }),
            Some("else") => {}
            Some(other) => {
                let next = other.strip_prefix("else if ").ok_or_else(|| format!("{{{{ {other} }}}} is not known"))?;
                condition = Some(pipe(next)?);
            }
            None => return Err(format!("{{{{ if {first} }}}} without {{{{ end }}}}")),
        }
    }
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let words = words(text)?;
    let mut parts = words.split(|word| word == "|");
    let first = term(parts.next().unwrap_or_default()).ok_or_else(|| format!("{text:?} is not known"))?;
    let calls = parts.map(|call| function(call).ok_or_else(|| format!("{text:?}: {call:?} is not known")));
    Ok(Pipe { first, calls: calls.collect::<Result<_, _>>()? })
}

/// Words between blanks; a text in quotes, which may hold blanks but no quotes, stays whole.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if first == '"' {
            rest[1..].find('"').map(|at| at + 2).ok_or_else(|| format!("{text:?}: a quote is open"))?
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at(end);
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

fn term(words: &[String]) -> Option<Term> {
    match words {
        [get, name] if get == ".Files.Get" => literal(name).map(Term::File),
        [word] if word.starts_with('"') => literal(word).map(Term::Text),
        [word] => {
            let mut names = word.strip_prefix('.')?.split('.').map(str::to_owned);
            let root = names.next()?;
            let path: Vec<String> = names.collect();
            let plain = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            path.iter().all(plain).then_some(())?;
            match (root.as_str(), &path[..]) {
                ("Values", _) => Some(Term::Value(path)),
                ("Release", [name]) if name == "Namespace" => Some(Term::Namespace),
                ("Chart", [name]) if name == "AppVersion" => Some(Term::AppVersion),
                _ => None,
            }
        }
        _ => None,
    }
}

fn function(words: &[String]) -> Option<Call> {
    match words {
        [name] if name == "toJson" => Some(Call::ToJson),
        [name, text] if name == "join" => literal(text).map(Call::Join),
        [name, rest @ ..] if name == "default" => term(rest).map(Call::Default),
        _ => None,
    }
}

/// A text in quotes without escapes.
fn literal(word: &str) -> Option<String> {
    let text = word.strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "{{ .Values.a",
            "{{ if .Values.a }}x",
            "x{{ end }}",
            "{{ else }}",
            "{{ include \"x\" . }}",
            "{{ range .Values.a }}{{ end }}",
            "{{ .Values.a | upper }}",
            "{{ .Values.a | default }}",
            "{{ .Capabilities.KubeVersion }}",
            "{{ $x := 1 }}",
            "{{ .Values.a-b }}",
            "{{ .Values..a }}",
            "{{ \"a\\n\" }}",
            "{{ \"open }}",
            "{{ }}",
            "{{ if .Values.a }}{{ elseif }}{{ end }}",
        ] {
            assert!(parse("t", text).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_name_the_template() {
        let error = parse("mesh/x.yaml", "{{ nonsense }}").unwrap_err().to_string();
        assert!(error.contains("mesh/x.yaml") && error.contains("nonsense"), "{error}");
    }
}
