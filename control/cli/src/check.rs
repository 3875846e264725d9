//! `weir check`: everything that is wrong, with what to do about it. Must never say that all is well about what it could not ask.

mod certificates;
mod conflicts;
mod control;
mod finding;
mod gateway;
mod installation;
mod kubernetes;
mod objects;
#[cfg(test)]
mod tests;
mod volume;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use self::finding::{Finding, Summary, text};
use crate::{
    args::CheckArgs,
    chart::{self, Object},
    cluster::Cluster,
    error::CliError,
    install, limits,
    output::{Format, json, note},
    session::{Outcome, Reach, Session},
};

/// Checks, again while there are errors and time to wait for their end.
pub(crate) async fn run(arguments: &CheckArgs, session: &Session, out: &mut dyn Write) -> Result<Outcome, CliError> {
    let begin = Instant::now();
    let mut said = false;
    let summary = loop {
        let summary = Summary::new(findings(arguments, session).await?);
        let waits = match arguments.wait {
            Some(wait) => !summary.success && begin.elapsed() < wait,
            None => patient(session) && summary.may_heal() && begin.elapsed() < limits::CHECK_WAIT_DEFAULT,
        };
        if !waits {
            break summary;
        }
        if !said && begin.elapsed() > Duration::from_secs(2) {
            let first = summary.first_error().unwrap_or("the mesh");
            note(&format!("waiting, as this is not so yet: {first} (give --wait 0s to see all of it now)"));
            said = true;
        }
        tokio::time::sleep(limits::CHECK_AGAIN).await;
    };
    match session.format {
        Format::Json => json(out, &summary)?,
        format => write!(out, "{}", text(&summary, session.color, format != Format::Short))?,
    }
    out.flush()?;
    Ok(if summary.success { Outcome::Good } else { Outcome::Bad })
}

/// What control cannot be asked yet may come; with an address given by hand it is wrong or right at once.
fn patient(session: &Session) -> bool {
    matches!(session.reach, Reach::Kubernetes(_))
}

async fn findings(arguments: &CheckArgs, session: &Session) -> Result<Vec<(String, Finding)>, CliError> {
    let Reach::Kubernetes(access) = &session.reach else {
        if arguments.pre {
            return Err(CliError::Argument("--pre asks Kubernetes: leave out --control".to_owned()));
        }
        return Ok(control::findings(session).await);
    };
    let cluster = match access.connect().await {
        Ok(cluster) => cluster,
        Err(error) => return Ok(vec![kubernetes::unusable(&error)]),
    };
    let (mut found, reached) = kubernetes::findings(&cluster).await;
    if !reached {
        return Ok(found);
    }
    found.extend(gateway::findings(&cluster).await);
    found.extend(conflicts::findings(&cluster).await);
    if arguments.pre {
        found.extend(installation::before(&cluster, &objects(arguments, session)?).await);
        found.extend(volume::findings(&cluster, installation::BEFORE).await);
        return Ok(found);
    }
    found.extend(after(&cluster, session).await);
    Ok(found)
}

/// Of an installation that is there, or should be.
async fn after(cluster: &Cluster, session: &Session) -> Vec<(String, Finding)> {
    let (mut found, installed) = installation::config(cluster).await;
    let Some(overrides) = installed else { return found };
    match chart::render(&overrides, &session.weir_namespace) {
        Ok(wanted) => found.extend(objects::findings(cluster, &wanted).await),
        Err(error) => found.push(installation::unreadable(&error)),
    }
    found.extend(volume::findings(cluster, objects::CATEGORY).await);
    found.extend(installation::workloads(cluster).await);
    found.extend(certificates::findings(cluster).await);
    found.extend(installation::status(cluster).await);
    found.extend(control::findings(session).await);
    found
}

/// What would be installed.
fn objects(arguments: &CheckArgs, session: &Session) -> Result<Vec<Object>, CliError> {
    let overrides = install::overrides(chart::Overrides::default(), &arguments.render)?;
    let mut objects = chart::render(&overrides, &session.weir_namespace)?;
    objects.retain(|object| arguments.stage.is_none_or(|stage| stage == object.stage));
    Ok(objects)
}
