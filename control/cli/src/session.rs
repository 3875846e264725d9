//! What all commands share. Must never hold state between commands.

use std::{path::PathBuf, time::Duration};

use crate::{
    args::{Command, Global},
    cluster::Access,
    error::CliError,
    output::Format,
};

/// Global choices.
pub(crate) struct Session {
    pub(crate) reach: Reach,
    /// Identity that control must prove, where one was given.
    pub(crate) control_identity: Option<String>,
    /// Namespace of the mesh.
    pub(crate) weir_namespace: String,
    /// For each connection, and for each call.
    pub(crate) within: Duration,
    pub(crate) format: Format,
    pub(crate) color: bool,
    namespace: Option<String>,
}

/// How control is reached.
pub(crate) enum Reach {
    /// By address.
    Direct(Direct),
    /// Through the API server of a cluster.
    Kubernetes(Access),
}

/// Control's address and what proves that it and we are who we say.
#[derive(Clone, Debug)]
pub(crate) struct Direct {
    /// `https://host:port`; `http://` on loopback only.
    pub(crate) url: Option<String>,
    /// PEM file.
    pub(crate) trust_anchors: Option<PathBuf>,
    /// File with the API token.
    pub(crate) token_file: Option<PathBuf>,
}

impl Session {
    /// What `global` says for this command.
    pub(crate) fn new(global: &Global, command: &Command) -> Result<Session, CliError> {
        let formats = command.formats();
        let default = formats.first().copied().unwrap_or(Format::Table);
        let format = global.output.unwrap_or(default);
        if !formats.contains(&format) {
            let known: Vec<&str> = formats.iter().map(|format| format.name()).collect();
            return Err(CliError::Argument(format!(
                "this command has no -o {}: there are {}",
                format.name(),
                known.join(", ")
            )));
        }
        let direct = Direct {
            url: global.control.clone(),
            trust_anchors: global.trust_anchors.clone(),
            token_file: global.token_file.clone(),
        };
        let access = Access {
            kubeconfig: global.kubeconfig.clone(),
            context: global.context.clone(),
            user: global.impersonate.clone(),
            groups: global.impersonate_groups.clone(),
            mesh: global.weir_namespace.clone(),
            within: global.timeout,
        };
        let addressed = direct.url.is_some() || direct.trust_anchors.is_some() || direct.token_file.is_some();
        Ok(Session {
            reach: if addressed { Reach::Direct(direct) } else { Reach::Kubernetes(access) },
            control_identity: global.control_identity.clone(),
            weir_namespace: global.weir_namespace.clone(),
            within: global.timeout,
            format,
            color: global.color.on(),
            namespace: global.namespace.clone(),
        })
    }

    /// Namespace to look at.
    pub(crate) fn namespace(&self) -> String {
        let of_context = || match &self.reach {
            Reach::Direct(_) => None,
            Reach::Kubernetes(access) => access.namespace(),
        };
        self.namespace.clone().or_else(of_context).unwrap_or_else(|| "default".to_owned())
    }
}

/// How a command that ran to its end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Good,
    /// It found errors and showed them: exit code 1.
    Bad,
}
