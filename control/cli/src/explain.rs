//! `weir explain`: what becomes of one request, and why. Must never decide: it shows what control's deciding code says.

mod answer;
#[cfg(test)]
mod tests;
mod text;

use std::io::Write;

use weir_api::v1::{ExplainRequest, Header};

use self::answer::Answer;
pub(crate) use self::{answer::routes_in_force, text::settings};
use crate::{
    args::asked::ExplainArgs,
    client::Client,
    error::CliError,
    output::{Format, json, note},
    session::{Outcome, Session},
    target::{Source, Target},
};

/// Content type of a call, where none is given.
const GRPC: &str = "application/grpc";

/// Asks control, and shows its answer.
pub(crate) async fn run(arguments: &ExplainArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let namespace = session.namespace();
    let from = Source::parse(&arguments.from, &namespace).map_err(CliError::Argument)?;
    let to = Target::parse(&arguments.to, &namespace).map_err(CliError::Argument)?;
    let request = request(arguments, &from, to).map_err(CliError::Argument)?;
    let client = Client::connect(session).await?;
    let answer = Answer::of(from, client.explain(request).await?);
    if session.format == Format::Json {
        json(out, &answer)?;
    } else {
        write!(out, "{}", text::of(&answer, session.color))?;
    }
    for word in &answer.notes {
        note(&format!("note: {word}"));
    }
    Ok(Outcome::Good)
}

fn request(arguments: &ExplainArgs, from: &Source, to: Target) -> Result<ExplainRequest, String> {
    let mut headers = arguments.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
    let (mut method, mut path) =
        (arguments.method.clone().unwrap_or_default(), arguments.path.clone().unwrap_or_default());
    if let Some(call) = &arguments.grpc {
        let call = call.strip_prefix('/').unwrap_or(call);
        if !matches!(call.split_once('/'), Some((service, method)) if !service.is_empty() && !method.is_empty() && !method.contains('/'))
        {
            return Err(format!("--grpc {call:?}: write SERVICE/METHOD, such as shop.Cart/Add"));
        }
        (method, path) = ("POST".to_owned(), format!("/{call}"));
        if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("content-type")) {
            headers.push(Header { name: "content-type".to_owned(), value: GRPC.to_owned() });
        }
    }
    Ok(ExplainRequest {
        client_namespace: from.namespace.clone(),
        client_kind: from.kind.clone(),
        client_name: from.name.clone(),
        namespace: to.namespace,
        service: to.name,
        port: to.port,
        method,
        authority: arguments.authority.clone().unwrap_or_default(),
        path,
        headers,
    })
}

fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("-H {text:?}: write 'NAME: VALUE'"))?;
    Ok(Header { name: name.trim().to_owned(), value: value.trim().to_owned() })
}
