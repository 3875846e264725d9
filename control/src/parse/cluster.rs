//! Objects of the API server, read like those of manifests. Must never hold on to what is not used of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{Finding, Options, document};
use crate::{
    limits,
    objects::{Kind, Name, Object, ObjectName},
};

/// What became of one object.
#[derive(Debug)]
pub enum Read {
    /// In use; with what is not understood of its labels and annotations.
    Object(Object, Vec<Finding>),
    /// Nobody needs it, as a pod without a node.
    Unneeded,
    /// Nothing that an API server would have taken; its last good version stays.
    Refused(Vec<Finding>),
}

impl Read {
    /// Reads an object of a kind: its metadata, and the rest of it.
    pub fn of(kind: Kind, metadata: &ObjectMeta, mut rest: Value, options: &Options) -> (ObjectName, Read) {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = ObjectName { kind, name: Name::new(namespace, metadata.name.as_deref().unwrap_or_default()) };
        if let Some(fields) = rest.as_object_mut() {
            fields.insert("metadata".to_owned(), used(metadata));
        }
        let read = match document::object_of(&name, rest, options) {
            Ok(Some((object, findings))) => Read::Object(object, few(findings)),
            Ok(None) => Read::Unneeded,
            Err(findings) => Read::Refused(few(findings)),
        };
        (name, read)
    }
}

/// As many as people read: each is logged, and kept.
fn few(mut findings: Vec<Finding>) -> Vec<Finding> {
    let more = findings.len().saturating_sub(limits::FINDINGS_PER_OBJECT);
    findings.truncate(limits::FINDINGS_PER_OBJECT);
    if let Some(last) = findings.last_mut().filter(|_| more > 0) {
        last.reason.push_str(&format!(" (and {more} more)"));
    }
    findings
}

/// What is read of metadata.
fn used(metadata: &ObjectMeta) -> Value {
    json!({
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "labels": metadata.labels,
        "annotations": metadata.annotations,
        "ownerReferences": metadata.owner_references,
        "creationTimestamp": metadata.creation_timestamp,
        "generation": metadata.generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{objects, options, pod};

    fn read(kind: Kind, text: &str) -> Read {
        let mut rest: Value = serde_yaml_ng::from_str(text.trim_end_matches("---\n")).unwrap();
        let metadata = serde_json::from_value(rest["metadata"].take()).unwrap();
        let (name, read) = Read::of(kind, &metadata, rest, &options());
        assert_eq!(name.to_string(), "Pod demo/web");
        read
    }

    #[test]
    fn an_object_of_the_api_server_is_what_its_manifest_is() {
        let more = "  labels: {pod-template-hash: abc, weir.mesh/enabled: \"true\"}\n  annotations: {config.linkerd.io/opaque-ports: \"5432\"}\n  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-abc, uid: r, controller: true}]";
        let text = pod("web", "node-1", "10.0.0.1", more);
        let Read::Object(object, _) = read(Kind::Pod, &text) else { panic!("not read") };
        assert_eq!(object, objects(&text).remove(0).1);
        assert!(matches!(read(Kind::Pod, &text.replace("nodeName: node-1", "x: y")), Read::Unneeded));
    }

    #[test]
    fn a_finding_names_object_and_field() {
        let text = pod("web", "node-1", "10.0.0.1", "  annotations: {weir.mesh/fail-mode: open}");
        let Read::Object(_, findings) = read(Kind::Pod, &text) else { panic!("not read") };
        let shown = findings[0].to_string();
        assert!(shown.starts_with("Pod demo/web: metadata.annotations.weir.mesh/fail-mode: "), "{shown}");
        let text = pod("web", "node-1", "10.0.0.1", "").replace("containers: [{name: app,", "containers: [{name: 7,");
        let Read::Refused(findings) = read(Kind::Pod, &text) else { panic!("not refused") };
        assert_eq!(findings[0].field, "spec.containers[0].name");
    }

    /// Seen to fail without the bound.
    #[test]
    fn findings_of_one_object_have_a_bound() {
        let routes = vec!["{name: a}"; 1_000].join(", ");
        let text = format!(
            "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\nmetadata: {{name: web.demo.svc.cluster.local, namespace: demo}}\nspec: {{routes: [{routes}]}}\n"
        );
        let mut rest: Value = serde_yaml_ng::from_str(&text).unwrap();
        let metadata = serde_json::from_value(rest["metadata"].take()).unwrap();
        let (_name, Read::Refused(findings)) = Read::of(Kind::ServiceProfile, &metadata, rest, &options()) else {
            panic!("not refused")
        };
        assert_eq!(findings.len(), limits::FINDINGS_PER_OBJECT);
        assert!(findings.last().unwrap().reason.ends_with("(and 980 more)"), "{findings:?}");
    }
}
