//! The chart under `deploy/chart`, part of this program: the objects that an installation consists of, as helm would render them.
//!
//! Must never render a value that the chart's schema does not allow.

mod documents;
mod render;
mod schema;
mod set;
mod template;
#[cfg(test)]
mod tests;
mod values;

use serde_json::Value;

pub(crate) use self::{
    documents::{Object, Reference},
    values::Overrides,
};

/// Which privileges applying takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Stage {
    /// What needs cluster-admin: cluster roles, the namespace, the volume of the node's socket.
    Cluster,
    /// What needs rights in the mesh's namespace only.
    Mesh,
}

macro_rules! chart_file {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart/", $path))
    };
}

/// In the order of applying: what others refer to comes first.
const TEMPLATES: [(Stage, &str, &str); 11] = [
    (Stage::Cluster, "cluster/namespace.yaml", chart_file!("templates/cluster/namespace.yaml")),
    (Stage::Cluster, "cluster/run-volume.yaml", chart_file!("templates/cluster/run-volume.yaml")),
    (Stage::Cluster, "cluster/rbac.yaml", chart_file!("templates/cluster/rbac.yaml")),
    (Stage::Mesh, "mesh/accounts.yaml", chart_file!("templates/mesh/accounts.yaml")),
    (Stage::Mesh, "mesh/rbac.yaml", chart_file!("templates/mesh/rbac.yaml")),
    (Stage::Mesh, "mesh/config.yaml", chart_file!("templates/mesh/config.yaml")),
    (Stage::Mesh, "mesh/network-policies.yaml", chart_file!("templates/mesh/network-policies.yaml")),
    (Stage::Mesh, "mesh/control.yaml", chart_file!("templates/mesh/control.yaml")),
    (Stage::Mesh, "mesh/holder.yaml", chart_file!("templates/mesh/holder.yaml")),
    (Stage::Mesh, "mesh/proxy.yaml", chart_file!("templates/mesh/proxy.yaml")),
    (Stage::Mesh, "mesh/pod-monitor.yaml", chart_file!("templates/mesh/pod-monitor.yaml")),
];
const DEFAULTS: &str = chart_file!("values.yaml");
const SCHEMA: &str = chart_file!("values.schema.json");
/// The name under which templates read the defaults: helm keeps `values.yaml` itself from them, so the chart has a link to it.
const DEFAULTS_LINK: &str = "defaults.yaml";
/// Every object of the chart carries it: what was installed is found by it. What control makes (its Secrets, ConfigMaps and Lease)
/// does not, so that nobody prunes it.
pub(crate) const PART_OF: &str = "weir.mesh/part-of=weir";

/// Why there are no objects.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChartError {
    #[error("{}", .0.join("; "))]
    Values(Vec<String>),
    #[error("{0}")]
    Set(#[from] set::SetError),
    #[error("the chart of this program is damaged: {0}; build it anew from an unchanged checkout")]
    Template(#[from] template::TemplateError),
    #[error("the chart of this program is damaged: {0}: {1}; build it anew from an unchanged checkout")]
    Chart(&'static str, String),
}

/// All objects of an installation in `namespace`, in the order of applying.
pub(crate) fn render(overrides: &Overrides, namespace: &str) -> Result<Vec<Object>, ChartError> {
    let schema = schema()?;
    let values = overrides.over(&defaults()?, &schema);
    let problems = schema::problems(&schema, &values);
    if !problems.is_empty() {
        return Err(ChartError::Values(problems));
    }
    let scope = render::Scope::new(values, namespace, env!("CARGO_PKG_VERSION"), (DEFAULTS_LINK, DEFAULTS));
    let mut objects = Vec::new();
    for (stage, name, text) in TEMPLATES {
        let rendered = render::render(&template::parse(name, text)?, &scope)?;
        objects.extend(documents::split(stage, name, &rendered)?);
    }
    Ok(objects)
}

/// What applies where nothing is set.
pub(crate) fn defaults() -> Result<Value, ChartError> {
    serde_yaml_ng::from_str(DEFAULTS).map_err(|error| ChartError::Chart("values.yaml", error.to_string()))
}

fn schema() -> Result<Value, ChartError> {
    serde_json::from_str(SCHEMA).map_err(|error| ChartError::Chart("values.schema.json", error.to_string()))
}
