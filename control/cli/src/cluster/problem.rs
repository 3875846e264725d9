//! What went wrong with Kubernetes, in words that say what to check. Must never hide what the API server said.

use kube::config::KubeconfigError;

use super::Cluster;
use crate::error::{CliError, deepest};

/// Why there is no configuration.
pub(super) fn kubeconfig(error: &KubeconfigError) -> CliError {
    let advice = match error {
        KubeconfigError::FindPath | KubeconfigError::ReadConfig(..) => {
            "give --kubeconfig FILE, set KUBECONFIG, or put one at ~/.kube/config; without a cluster, give --control"
        }
        KubeconfigError::CurrentContextNotSet => "give --context, or choose one with `kubectl config use-context`",
        KubeconfigError::LoadContext(_) | KubeconfigError::LoadClusterOfContext(_) => {
            "see `kubectl config view`, and give another --context"
        }
        _ => "see whether kubectl can use it",
    };
    CliError::Kubeconfig { reason: error.to_string(), advice }
}

/// What an answer of the API server, or none, means.
pub(crate) fn explain(error: kube::Error, doing: &str, cluster: &Cluster) -> CliError {
    match error {
        kube::Error::Api(status) if status.code == 401 => CliError::Kubeconfig {
            reason: format!("{doing}: the API server does not know who is asking ({})", status.message),
            advice: "log in again, or give another --context",
        },
        kube::Error::Api(status) if status.is_forbidden() => {
            CliError::Forbidden { doing: doing.to_owned(), reason: status.message, namespace: cluster.mesh.clone() }
        }
        kube::Error::Api(status) if status.code == 404 => {
            CliError::Missing { doing: doing.to_owned(), reason: status.message, namespace: cluster.mesh.clone() }
        }
        kube::Error::Api(status) => CliError::Kubernetes { doing: doing.to_owned(), reason: status.message },
        kube::Error::SerdeError(error) => CliError::Kubernetes {
            doing: doing.to_owned(),
            reason: format!("the answer is not as Kubernetes answers: {error}"),
        },
        kube::Error::Auth(error) => {
            CliError::Kubeconfig { reason: format!("{doing}: {error}"), advice: "see whether kubectl can use it" }
        }
        other => CliError::ApiServer { url: cluster.url.clone(), reason: format!("{doing}: {}", deepest(&other)) },
    }
}
