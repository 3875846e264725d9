//! Documents of a file: where each begins, which object it holds, what is wrong with it. Must never decide what a field means.

use serde::{Deserialize, de::DeserializeOwned};
use serde_yaml_ng::{Deserializer, Value};

use super::{
    FieldError, Finding, Options, Parsed, authorizations, connection_routes, convert, convert::Outcome, fields,
    grpc_routes, profiles, routes, server_routes, splits,
};
use crate::objects::{Kind, Name, Object, ObjectName};

/// One YAML document of a file.
pub(super) struct Document<'a> {
    text: &'a str,
    /// Line of the file at which `text` begins, from 1.
    line: usize,
}

/// Cuts at `---` and `...` lines: YAML allows neither at the start of a line inside a document.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut begin, mut begin_line, mut offset) = (0, 1, 0);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let marker = line.starts_with("---") || line.starts_with("...");
        if marker && line[3..].chars().next().is_none_or(char::is_whitespace) {
            documents.push(Document { text: &text[begin..offset], line: begin_line });
            begin = offset + line.len();
            begin_line = number + 1;
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[begin..], line: begin_line });
    documents.retain(|document| !is_blank(document.text));
    documents
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    })
}

/// Whether `key:` stands in the line, at its start or inside braces.
fn has_key(line: &str, key: &str) -> bool {
    let inside = |character: char| character.is_alphanumeric() || matches!(character, '.' | '/' | '_');
    line.match_indices(key).any(|(at, _)| {
        let rest = line[at + key.len()..].trim_start_matches(['"', '\'']);
        rest.starts_with(':') && !line[..at].ends_with(inside)
    })
}

impl Document<'_> {
    /// As it is written.
    pub(super) fn text(&self) -> &str {
        self.text
    }

    /// Line of the file with its first content.
    pub(super) fn line(&self) -> usize {
        self.line + self.first_content()
    }

    /// Line of the file at which a field stands: that of its last key, of as many as its last index says.
    fn line_of(&self, field: &str) -> usize {
        let annotation = field.strip_prefix("metadata.annotations.").or_else(|| field.strip_prefix("metadata.labels."));
        let key = annotation.unwrap_or_else(|| field.rsplit('.').next().unwrap_or(field));
        let key = key.split('[').next().unwrap_or(key);
        let index = field.rsplit_once('[').and_then(|(_, rest)| rest.split(']').next()?.parse().ok()).unwrap_or(0);
        let lines: Vec<usize> =
            self.text.lines().enumerate().filter(|(_, line)| has_key(line, key)).map(|(number, _)| number).collect();
        self.line + lines.get(index).or(lines.first()).copied().unwrap_or_else(|| self.first_content())
    }

    fn first_content(&self) -> usize {
        self.text.lines().position(|line| !is_blank(line)).unwrap_or(0)
    }

    /// Best guess at the object of a document that is no YAML, for the finding only.
    fn sketch(&self) -> Option<String> {
        let value = |prefix: &str| {
            let line = self.text.lines().find(|line| line.trim_start().starts_with(prefix))?;
            Some(line.trim_start().strip_prefix(prefix)?.trim().trim_matches(['"', '\'']).to_owned())
        };
        let (kind, name) = (value("kind:")?, value("name:")?);
        Some(match value("namespace:") {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        })
    }
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: HeaderMetadata,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
struct HeaderMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

/// Reads one document into `parsed`.
pub(super) fn read(file: &str, document: &Document<'_>, options: &Options, parsed: &mut Parsed) {
    let header: Header = match typed(Deserializer::from_str(document.text)) {
        Ok(header) => header,
        Err(failure) => {
            parsed.unnamed_refusal = true;
            parsed.findings.push(failure.finding(file, document, document.sketch()));
            return;
        }
    };
    if let (true, Some(items)) = (header.kind.ends_with("List"), header.items) {
        for item in items {
            read_item(file, document, item, options, parsed);
        }
        return;
    }
    let Some(kind) = Kind::of(&header.api_version, &header.kind) else {
        not_read(file, document, &header.api_version, &header.kind, parsed);
        return;
    };
    let Some(name) = object_name(kind, &header.metadata) else {
        unnamed(file, document, kind, parsed);
        return;
    };
    let outcome = object(kind, options, || Deserializer::from_str(document.text));
    take(file, document, name, outcome, parsed);
}

/// An item of a `List` (what `kubectl get -o yaml` prints): its lines are not known.
fn read_item(file: &str, document: &Document<'_>, item: Value, options: &Options, parsed: &mut Parsed) {
    let header: Header = match typed(item.clone()) {
        Ok(header) => header,
        Err(failure) => {
            parsed.unnamed_refusal = true;
            parsed.findings.push(failure.finding(file, document, None));
            return;
        }
    };
    let Some(kind) = Kind::of(&header.api_version, &header.kind) else {
        not_read(file, document, &header.api_version, &header.kind, parsed);
        return;
    };
    let Some(name) = object_name(kind, &header.metadata) else {
        unnamed(file, document, kind, parsed);
        return;
    };
    let outcome = object(kind, options, || item.clone());
    take(file, document, name, outcome, parsed);
}

fn object_name(kind: Kind, metadata: &HeaderMetadata) -> Option<ObjectName> {
    let namespace = match (kind, metadata.namespace.as_str()) {
        (Kind::Namespace, _) => "",
        (_, "") => "default",
        (_, namespace) => namespace,
    };
    (!metadata.name.is_empty()).then(|| ObjectName { kind, name: Name::new(namespace, &metadata.name) })
}

fn not_read(file: &str, document: &Document<'_>, api_version: &str, kind: &str, parsed: &mut Parsed) {
    if kind.is_empty() || api_version.is_empty() {
        parsed.unnamed_refusal = true;
        let missing = if kind.is_empty() { "kind" } else { "apiVersion" };
        let failure = Failure::of(FieldError::new(missing, "missing: is this a Kubernetes object?"));
        parsed.findings.push(failure.finding(file, document, document.sketch()));
    } else {
        parsed.ignored.push(format!("{api_version}/{kind}"));
    }
}

fn unnamed(file: &str, document: &Document<'_>, kind: Kind, parsed: &mut Parsed) {
    parsed.unnamed_refusal = true;
    let failure = Failure::of(FieldError::new("metadata.name", "missing"));
    parsed.findings.push(failure.finding(file, document, Some(kind.shown().to_owned())));
}

fn take(file: &str, document: &Document<'_>, name: ObjectName, outcome: Outcome<Failure>, parsed: &mut Parsed) {
    let named = |failure: Failure| failure.finding(file, document, Some(name.to_string()));
    match outcome {
        Ok(Some((object, flaws))) => {
            parsed.findings.extend(flaws.into_iter().map(named));
            parsed.objects.push((name, object));
        }
        Ok(None) => {}
        Err(failures) => {
            parsed.findings.extend(failures.into_iter().map(named));
            parsed.refused.push(name);
        }
    }
}

/// Why a document was refused, and at which of its own lines, where that is known.
struct Failure {
    error: FieldError,
    line: Option<usize>,
}

impl Failure {
    fn of(error: FieldError) -> Failure {
        Failure { error, line: None }
    }

    fn finding(self, file: &str, document: &Document<'_>, object: Option<String>) -> Finding {
        let line = match self.line {
            Some(line) => document.line + line - 1,
            None => document.line_of(&self.error.field),
        };
        let FieldError { field, reason } = self.error;
        Finding { file: file.to_owned(), line, object, field, reason }
    }
}

fn typed<'de, T: DeserializeOwned, D>(deserializer: D) -> Result<T, Failure>
where
    D: serde::Deserializer<'de, Error = serde_yaml_ng::Error>,
{
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        let inner = error.into_inner();
        let line = inner.location().map(|location| location.line());
        Failure { error: FieldError::new(field, without_position(&inner.to_string())), line }
    })
}

/// Takes the parser's own path and position off: they count from the start of the document, and findings have both.
fn without_position(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    match message.split_once(": ") {
        Some((path, rest)) if !path.contains(' ') => rest.to_owned(),
        _ => message.to_owned(),
    }
}

fn object<'de, D>(kind: Kind, options: &Options, source: impl Fn() -> D) -> Outcome<Failure>
where
    D: serde::Deserializer<'de, Error = serde_yaml_ng::Error>,
{
    let one = |failure| vec![failure];
    let converted = match kind {
        Kind::Namespace => convert::namespace(&typed::<fields::Plain, D>(source()).map_err(one)?, options),
        Kind::Pod => convert::pod(&typed::<fields::Pod, D>(source()).map_err(one)?, options),
        Kind::Service => convert::service(&typed::<fields::Service, D>(source()).map_err(one)?, options),
        Kind::EndpointSlice => convert::slice(&typed::<fields::EndpointSlice, D>(source()).map_err(one)?),
        Kind::ServiceAccount => {
            typed::<fields::Plain, D>(source()).map_err(one)?;
            Ok(Some((Object::ServiceAccount, Vec::new())))
        }
        Kind::HttpRoute | Kind::PolicyHttpRoute => {
            let parents = typed::<fields::RouteParents, D>(source()).map_err(one)?;
            if !routes::is_ours(&parents) {
                return Ok(None);
            }
            match typed::<fields::HttpRoute, D>(source()) {
                Ok(given) => routes::http_route(&given),
                Err(failure) => return broken_route(&parents, failure),
            }
        }
        Kind::GrpcRoute => {
            let parents = typed::<fields::RouteParents, D>(source()).map_err(one)?;
            if !routes::is_ours(&parents) {
                return Ok(None);
            }
            match typed::<fields::GrpcRoute, D>(source()) {
                Ok(given) => grpc_routes::grpc_route(&given),
                Err(failure) => return broken_route(&parents, failure),
            }
        }
        Kind::TlsRoute | Kind::TcpRoute => {
            let parents = typed::<fields::RouteParents, D>(source()).map_err(one)?;
            if !routes::is_of_service(&parents) {
                return Ok(None);
            }
            let given = typed::<fields::ConnectionRoute, D>(source()).map_err(one)?;
            if kind == Kind::TlsRoute {
                connection_routes::tls_route(&given)
            } else {
                connection_routes::tcp_route(&given)
            }
        }
        Kind::ServiceProfile => profiles::service_profile(&typed::<fields::ServiceProfile, D>(source()).map_err(one)?),
        Kind::TrafficSplit => splits::traffic_split(&typed::<fields::TrafficSplit, D>(source()).map_err(one)?),
        Kind::Server
        | Kind::ServerAuthorization
        | Kind::AuthorizationPolicy
        | Kind::MeshTlsAuthentication
        | Kind::NetworkAuthentication => return policy(kind, options, source()),
    };
    let failures = |errors: Vec<FieldError>| errors.into_iter().map(Failure::of).collect();
    converted.map(|read| read.map(|(object, flaws)| (object, failures(flaws)))).map_err(failures)
}

fn broken_route(parents: &fields::RouteParents, Failure { error, line }: Failure) -> Outcome<Failure> {
    match server_routes::broken(parents, error) {
        Ok((object, error)) => Ok(Some((object, vec![Failure { error, line }]))),
        Err(error) => Err(vec![Failure { error, line }]),
    }
}

/// One that has fields of other types than it should is not kept as it was: who it let in before, nobody lets in now.
fn policy<'de, D>(kind: Kind, options: &Options, source: D) -> Outcome<Failure>
where
    D: serde::Deserializer<'de, Error = serde_yaml_ng::Error>,
{
    let converted = match kind {
        Kind::Server => typed::<fields::Server, D>(source).map(|given| authorizations::server(&given)),
        Kind::ServerAuthorization => typed::<fields::ServerAuthorization, D>(source)
            .map(|given| authorizations::server_authorization(&given, options)),
        Kind::AuthorizationPolicy => typed::<fields::AuthorizationPolicy, D>(source)
            .map(|given| authorizations::authorization_policy(&given, options)),
        Kind::MeshTlsAuthentication => {
            typed::<fields::MeshTlsAuthentication, D>(source).map(|given| authorizations::mesh_tls(&given, options))
        }
        _network => typed::<fields::NetworkAuthentication, D>(source)
            .map(|given| authorizations::network_authentication(&given)),
    };
    let failures = |errors: Vec<FieldError>| errors.into_iter().map(Failure::of).collect();
    match converted {
        Ok(read) => read.map(|read| read.map(|(object, flaws)| (object, failures(flaws)))).map_err(failures),
        Err(Failure { error, line }) => {
            let (object, error) = authorizations::broken(kind, error);
            Ok(Some((object, vec![Failure { error, line }])))
        }
    }
}

/// Reads an object of the API server, of which no file and no line is known.
pub(super) fn object_of(name: &ObjectName, value: serde_json::Value, options: &Options) -> Outcome<Finding> {
    let named = |failures: Vec<Failure>| -> Vec<Finding> {
        let finding = |Failure { error: FieldError { field, reason }, .. }| Finding {
            file: String::new(),
            line: 0,
            object: Some(name.to_string()),
            field,
            reason,
        };
        failures.into_iter().map(finding).collect()
    };
    // By way of the form that manifests have: one way to read each kind, compiled once.
    let value = match serde_yaml_ng::to_value(value) {
        Ok(value) => value,
        Err(error) => return Err(named(vec![Failure::of(FieldError::new("", error.to_string()))])),
    };
    let read = object(name.kind, options, || value.clone());
    read.map(|read| read.map(|(object, flaws)| (object, named(flaws)))).map_err(named)
}
