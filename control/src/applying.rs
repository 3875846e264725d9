//! Server-side apply of what somebody sends: looked at by the code that reads it later, before it is written. Must never write what would be refused then.

use kube::api::{DynamicObject, PatchParams};
use serde_json::Value;
use tonic::Status;
use weir_api::v1::{self, ApplyOutcome};

use crate::{
    kubernetes::writer::{Hand, Refusal},
    objects::{Kind, ObjectName},
    parse::{Finding, Options, Read, Written},
};

/// Owns fields where nothing else is said.
const MANAGER: &str = "weir";

/// How objects are written.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    params: PatchParams,
    dry_run: bool,
}

impl Manner {
    /// As a request says it.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: a manager whose name Kubernetes would not take.
    pub(crate) fn of(request: &v1::ApplyRequest) -> Result<Manner, Status> {
        let manager = if request.field_manager.is_empty() { MANAGER } else { &request.field_manager };
        // metav1.validation: at most 128 printable characters.
        if manager.chars().count() > 128 || manager.chars().any(char::is_control) {
            return Err(Status::invalid_argument("field_manager: at most 128 printable characters"));
        }
        let mut params = PatchParams::apply(manager);
        params.force = request.force;
        Ok(Manner { params, dry_run: request.dry_run })
    }
}

/// Writes one object, or says why not.
pub(crate) async fn apply(hand: &Hand, written: &Written, manner: &Manner, options: &Options) -> v1::ApplyResult {
    let refused = |outcome: ApplyOutcome, message: String| v1::ApplyResult {
        object: written.name.as_ref().map(ObjectName::to_api),
        outcome: outcome.into(),
        message,
        ..v1::ApplyResult::default()
    };
    let Some(name) = &written.name else {
        let kinds =
            "HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, ServiceProfile, TrafficSplit and Service are written here";
        return refused(ApplyOutcome::Invalid, format!("{}: {kinds}", written.shown));
    };
    if let Err(reason) = may_be_written(name, &written.value) {
        return refused(ApplyOutcome::Invalid, reason);
    }
    match write(hand, name, written, manner, options).await {
        Ok(result) => result,
        Err(Trouble::Unfit(findings)) => {
            let shown: Vec<String> = findings.iter().map(|one| format!("{}: {}", one.field, one.reason)).collect();
            refused(ApplyOutcome::Invalid, shown.join("; "))
        }
        Err(Trouble::Refused(Refusal::Silent(reason))) => refused(ApplyOutcome::Failed, reason),
        Err(Trouble::Refused(Refusal::Said(said))) => {
            let outcome = outcome_of(&said);
            v1::ApplyResult { conflicts: conflicts(&said), ..refused(outcome, said.message) }
        }
    }
}

/// Why an object is not written.
enum Trouble {
    /// The mesh would not understand it.
    Unfit(Vec<Finding>),
    /// The API server does not do it.
    Refused(Refusal),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refused(refusal)
    }
}

async fn write(
    hand: &Hand,
    name: &ObjectName,
    written: &Written,
    manner: &Manner,
    options: &Options,
) -> Result<v1::ApplyResult, Trouble> {
    // Who may write need not be one who may read: then it is not known what was there before.
    let before = match hand.get(name, &written.version).await {
        Err(Refusal::Said(said)) if said.code == 403 => None,
        before => Some(before?),
    };
    let try_out = PatchParams { dry_run: true, ..manner.params.clone() };
    let would_be = hand.apply(name, &written.version, &written.value, &try_out).await?;
    let message = judged(name, written, &would_be, options).map_err(Trouble::Unfit)?;
    let after = match manner.dry_run {
        true => would_be,
        false => hand.apply(name, &written.version, &written.value, &manner.params).await?,
    };
    let outcome = match before {
        None => ApplyOutcome::Configured,
        Some(None) => ApplyOutcome::Created,
        Some(Some(before)) if is_same(&before, &after) => ApplyOutcome::Unchanged,
        Some(Some(_other)) => ApplyOutcome::Configured,
    };
    Ok(v1::ApplyResult {
        object: Some(name.to_api()),
        outcome: outcome.into(),
        message,
        conflicts: Vec::new(),
        generation: after.metadata.generation.unwrap_or_default(),
    })
}

/// Of Services the mesh has only annotations to say.
fn may_be_written(name: &ObjectName, value: &Value) -> Result<(), String> {
    if name.kind != Kind::Service {
        return Ok(());
    }
    let others = ["spec", "status"].into_iter().find(|field| value.get(field).is_some());
    let metadata = value["metadata"].as_object();
    let foreign =
        metadata.and_then(|all| all.keys().find(|key| !["name", "namespace", "annotations"].contains(&key.as_str())));
    match (others, foreign) {
        (None, None) => Ok(()),
        (Some(field), _) => Err(format!("{field}: of a Service only annotations are written here")),
        (None, Some(field)) => Err(format!("metadata.{field}: of a Service only annotations are written here")),
    }
}

/// What the mesh makes of the whole object: words for people where it makes nothing of it.
fn judged(
    name: &ObjectName,
    written: &Written,
    would_be: &DynamicObject,
    options: &Options,
) -> Result<String, Vec<Finding>> {
    let (_name, read) = Read::of(name.kind, &would_be.metadata, would_be.data.clone(), options);
    let (own, others): (Vec<Finding>, Vec<Finding>) = match read {
        Read::Refused(findings) => return Err(findings),
        Read::Unneeded => {
            return Ok("none of its parents is a Service: nothing in the mesh follows it".to_owned());
        }
        Read::Object(_object, findings) => findings.into_iter().partition(|one| says(&written.value, &one.field)),
    };
    // What stood there before is not this caller's to mend.
    if own.is_empty() {
        let shown: Vec<String> = others.iter().map(|one| format!("{}: {}", one.field, one.reason)).collect();
        return Ok(shown.join("; "));
    }
    Err(own)
}

/// Whether the object that was given has what a finding is about: a label or an annotation.
fn says(value: &Value, field: &str) -> bool {
    let place = ["annotations", "labels"].into_iter().find_map(|place| {
        let key = field.strip_prefix("metadata.")?.strip_prefix(place)?.strip_prefix('.')?;
        Some((place, key))
    });
    place.is_none_or(|(place, key)| value["metadata"][place].get(key).is_some())
}

fn is_same(before: &DynamicObject, after: &DynamicObject) -> bool {
    let (one, other) = (&before.metadata, &after.metadata);
    // Its status is other people's.
    let data = |object: &DynamicObject| {
        let mut data = object.data.clone();
        if let Some(fields) = data.as_object_mut() {
            fields.remove("status");
        }
        data
    };
    one.uid == other.uid
        && one.annotations == other.annotations
        && one.labels == other.labels
        && data(before) == data(after)
}

fn outcome_of(said: &kube::core::Status) -> ApplyOutcome {
    match said.code {
        409 => ApplyOutcome::Conflict,
        401 | 403 => ApplyOutcome::Forbidden,
        400 | 404 | 415 | 422 => ApplyOutcome::Invalid,
        _other => ApplyOutcome::Failed,
    }
}

/// Whose fields they are: the API server says it in words, `conflict with "manager" …` (structured-merge-diff).
fn conflicts(said: &kube::core::Status) -> Vec<v1::FieldConflict> {
    let causes = said.details.iter().flat_map(|details| &details.causes);
    let conflict = causes.filter(|cause| cause.reason == "FieldManagerConflict").map(|cause| {
        let manager = cause.message.split('"').nth(1).unwrap_or(&cause.message);
        v1::FieldConflict { manager: manager.to_owned(), field: cause.field.clone() }
    });
    conflict.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::Name;

    #[test]
    fn of_a_service_only_annotations_are_written() {
        let name = ObjectName { kind: Kind::Service, name: Name::new("shop", "web") };
        let mut value = json!({"metadata": {"name": "web", "namespace": "shop", "annotations": {"a": "b"}}});
        may_be_written(&name, &value).unwrap();
        value["metadata"]["labels"] = json!({});
        assert!(may_be_written(&name, &value).unwrap_err().starts_with("metadata.labels: "));
        value["spec"] = json!({});
        assert!(may_be_written(&name, &value).unwrap_err().starts_with("spec: "));
        let route = ObjectName { kind: Kind::HttpRoute, ..name };
        may_be_written(&route, &value).unwrap();
    }

    #[test]
    fn a_finding_is_the_callers_where_the_caller_wrote_what_it_is_about() {
        let value = json!({"metadata": {"annotations": {"weir.mesh/a.b": "x"}}});
        assert!(says(&value, "metadata.annotations.weir.mesh/a.b"));
        assert!(!says(&value, "metadata.annotations.weir.mesh/other"));
        assert!(says(&value, "spec.rules[0]"), "whatever is no annotation refuses");
    }
}
