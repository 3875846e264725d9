//! `weir diagnostics`: what nodes are told, as they are told it. Must never tidy up what is shown: it is for those who doubt it.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;
use weir_api::v1::{Destination, ResourceRequest};

use crate::{
    args::asked::DiagnosticsPolicyArgs,
    client::Client,
    error::CliError,
    output::{Format, json},
    session::{Outcome, Session},
    target::Target,
};

/// The resource, with the address that it is told for.
#[derive(Serialize)]
struct Resource {
    key: String,
    destination: Destination,
}

/// Asks control, and shows its answer.
pub(crate) async fn policy(
    arguments: &DiagnosticsPolicyArgs,
    session: &Session,
    out: &mut dyn Write,
) -> Result<Outcome, CliError> {
    let Target { namespace, name, port } =
        Target::parse(&arguments.service, &session.namespace()).map_err(CliError::Argument)?;
    let port = match arguments.port.map(u32::from) {
        Some(given) if port != 0 && port != given => {
            return Err(CliError::Argument(format!("ports {port} and {given} were given: name one")));
        }
        Some(given) => given,
        None => port,
    };
    let client = Client::connect(session).await?;
    let answer = client.resource(ResourceRequest { namespace, service: name, port }).await?;
    let resource = Resource { key: answer.key, destination: answer.destination.unwrap_or_default() };
    let shown = said(serde_json::to_value(&resource)?);
    if session.format == Format::Json {
        json(out, &shown)?;
    } else {
        let text = serde_yaml_ng::to_string(&shown).map_err(|error| CliError::Argument(error.to_string()))?;
        out.write_all(text.as_bytes())?;
    }
    Ok(Outcome::Good)
}

/// Without what is unset.
fn said(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, said(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(said).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use weir_api::v1::{Protocol, ServiceTarget, destination::Target};

    use super::*;

    #[test]
    fn the_resource_has_protobufs_names() {
        let service =
            ServiceTarget { name: "web".into(), protocol: Protocol::Http2.into(), ..ServiceTarget::default() };
        let destination = Destination { target: Some(Target::Service(service)) };
        let shown = said(serde_json::to_value(Resource { key: "10.0.0.1:80".into(), destination }).unwrap());
        assert_eq!(shown["destination"]["service"]["name"], "web");
        assert_eq!(shown["destination"]["service"]["protocol"], "HTTP2");
        assert_eq!(shown["destination"]["service"]["httpRoutes"], serde_json::json!([]));
        assert_eq!(shown["destination"]["service"].get("breaker"), None);
    }
}
