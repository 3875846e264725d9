//! Access to a cluster with a kubeconfig, as kubectl has it. Must never wait longer than it was told, nor print a credential.

mod forward;
mod problem;

use std::{future::Future, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

pub(crate) use self::{
    forward::{Route, VIEWER, ready, route},
    problem::explain,
};
use crate::error::CliError;

/// Where the cluster is, who asks, and where the mesh is in it.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) context: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<String>,
    /// Namespace of the mesh.
    pub(crate) mesh: String,
    pub(crate) within: Duration,
}

/// A cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Address of the API server.
    pub(crate) url: String,
    /// Namespace of the mesh.
    pub(crate) mesh: String,
    pub(crate) within: Duration,
}

impl Access {
    /// A client. Asks nothing of the cluster yet.
    pub(crate) async fn connect(&self) -> Result<Cluster, CliError> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(self.within);
        // Each call has its own bound; a forwarded connection may be silent for as long as `--watch` wants.
        config.read_timeout = None;
        config.write_timeout = None;
        config.headers.extend(self.impersonation()?);
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| CliError::Kubeconfig {
            reason: error.to_string(),
            advice: "check its certificates and keys",
        })?;
        Ok(Cluster { client, url, mesh: self.mesh.clone(), within: self.within })
    }

    /// Namespace of the chosen context.
    pub(crate) fn namespace(&self) -> Option<String> {
        let file = self.file().ok()?;
        let wanted = self.context.as_ref().or(file.current_context.as_ref())?;
        let context = file.contexts.iter().find(|context| context.name == *wanted)?;
        context.context.as_ref()?.namespace.clone()
    }

    fn file(&self) -> Result<Kubeconfig, kube::config::KubeconfigError> {
        match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        }
    }

    async fn config(&self) -> Result<Config, CliError> {
        let file = match self.file() {
            Ok(file) => file,
            // In a pod there is a service account instead.
            Err(error) if self.kubeconfig.is_none() && self.context.is_none() => {
                return Config::incluster().map_err(|_outside| problem::kubeconfig(&error));
            }
            Err(error) => return Err(problem::kubeconfig(&error)),
        };
        let known: Vec<String> = file.contexts.iter().map(|context| context.name.clone()).collect();
        if let Some(wanted) = self.context.as_ref().filter(|wanted| !known.contains(wanted)) {
            return Err(CliError::Argument(format!(
                "--context {wanted:?}: the kubeconfig has no such context; it has {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(file, &options).await.map_err(|error| problem::kubeconfig(&error))
    }

    fn impersonation(&self) -> Result<Vec<(HeaderName, HeaderValue)>, CliError> {
        let user = self.user.iter().map(|user| ("impersonate-user", user));
        let groups = self.groups.iter().map(|group| ("impersonate-group", group));
        let header = |(name, value): (&'static str, &String)| {
            let value = HeaderValue::from_str(value)
                .map_err(|_odd| CliError::Argument(format!("--as, --as-group: {value:?} is no name")))?;
            Ok((HeaderName::from_static(name), value))
        };
        user.chain(groups).map(header).collect()
    }
}

impl Cluster {
    /// Waits for an answer of the API server, and says what to check when it is none.
    pub(crate) async fn ask<T>(&self, doing: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, CliError> {
        match tokio::time::timeout(self.within, call).await {
            Ok(answer) => answer.map_err(|error| explain(error, doing, self)),
            Err(_elapsed) => Err(CliError::ApiServer {
                url: self.url.clone(),
                reason: format!("{doing}: no answer within {:?}", self.within),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: b\ncontexts:\n\
        - {name: a, context: {cluster: c, user: u, namespace: shop}}\n- {name: b, context: {cluster: c, user: u}}\n\
        clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n";

    fn access(folder: &tempfile::TempDir, context: Option<&str>) -> Access {
        let path = folder.path().join("config");
        fs::write(&path, KUBECONFIG).unwrap();
        Access {
            kubeconfig: Some(path),
            context: context.map(str::to_owned),
            user: Some("jane".to_owned()),
            groups: vec!["dev".to_owned(), "ops".to_owned()],
            mesh: "weir".to_owned(),
            within: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn contexts_and_their_namespaces() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(access(&folder, Some("a")).namespace().as_deref(), Some("shop"));
        assert_eq!(access(&folder, None).namespace(), None, "the current one has none");
        let unknown = access(&folder, Some("c")).config().await.unwrap_err().to_string();
        assert!(unknown.contains("it has a, b"), "{unknown}");
        let absent = Access { kubeconfig: Some(folder.path().join("absent")), ..access(&folder, None) };
        let absent = absent.config().await.unwrap_err().to_string();
        assert!(absent.contains("absent") && absent.contains("--kubeconfig"), "{absent}");
    }

    #[test]
    fn impersonation_is_headers() {
        let folder = tempfile::tempdir().unwrap();
        let headers = access(&folder, None).impersonation().unwrap();
        let texts: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        assert_eq!(texts, ["impersonate-user=jane", "impersonate-group=dev", "impersonate-group=ops"]);
        let odd = Access { user: Some("a\nb".to_owned()), ..access(&folder, None) };
        assert!(odd.impersonation().is_err());
    }
}
