//! What became of routes, written into their status (Gateway API).
//!
//! Must never touch what other controllers say there, and never be written by a replica that does not lead.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::{Failure, election::Leadership, watch::Served, within};
use crate::{
    limits,
    objects::ObjectName,
    plane::Plane,
    route_status::{Condition, Said, wanted},
};

/// `controllerName`: tells our entries from others'.
const CONTROLLER: &str = "weir.mesh/control";

/// Writes while this replica leads.
pub(super) async fn follow(client: Client, served: Served, plane: Arc<Plane>, mut leadership: Leadership) {
    let mut changes = plane.changes();
    let mut rescan = interval(limits::ROUTES_RESCAN);
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written: HashMap<ObjectName, Said> = HashMap::new();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = leadership.changed() => {}
            // Somebody may have changed what was written.
            _tick = rescan.tick() => written.clear(),
        }
        changes.mark_unchanged();
        if !plane.is_loaded() {
            continue;
        }
        if !leadership.is_held() {
            written.clear();
            continue;
        }
        let wanted = wanted(&plane);
        written.retain(|name, _| wanted.contains_key(name));
        for (name, said) in wanted {
            if written.get(&name) == Some(&said) || !leadership.is_held() {
                continue;
            }
            match write(&client, &served, &name, &said).await {
                Ok(()) => {
                    written.insert(name, said);
                }
                // Gone, or changed meanwhile: the watch says so, and it is looked at again.
                Err(Failure::NotFound | Failure::Conflict) => {}
                Err(error) => {
                    tracing::warn!(%error, route = %name, "the route's status cannot be written; it is tried again")
                }
            }
        }
        tokio::time::sleep(limits::PODS_PAUSE).await;
    }
}

async fn write(client: &Client, served: &Served, route: &ObjectName, said: &Said) -> Result<(), Failure> {
    let name = &route.name;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &name.namespace, &served.resource(route.kind));
    let object = within(api.get(&name.name)).await?;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let generation = object.metadata.generation.unwrap_or_default();
    let Some(parents) = parents(&object.data, generation, said, &now) else { return Ok(()) };
    let patch = json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "status": { "parents": parents },
    });
    within(api.patch_status(&name.name, &PatchParams::default(), &Patch::Merge(patch))).await.map(drop)
}

/// `status.parents` as it is to be; `None` when it is so already, or speaks of another generation than what was read.
fn parents(object: &Value, generation: i64, said: &Said, now: &str) -> Option<Vec<Value>> {
    let before = object["status"]["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let written = object["spec"]["parentRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours: Vec<&Value> = written.iter().filter(|parent| is_service(parent) || is_server(parent)).collect();
    let is_own =
        |entry: &Value, reference: &Value| entry["controllerName"] == CONTROLLER && entry["parentRef"] == *reference;
    // Each stays where it stands: two controllers that both put theirs last would never be done.
    let stays = |entry: &&Value| entry["controllerName"] != CONTROLLER || ours.iter().any(|one| is_own(entry, one));
    let mut after: Vec<Value> = before.iter().filter(stays).cloned().collect();
    let mut of_services = match said {
        Said::Taken { generation: read, .. } if *read != generation => return None,
        Said::Taken { conditions, .. } => conditions.iter(),
        Said::Refused(_) => [].iter(),
    };
    for reference in ours {
        let conditions = match said {
            Said::Refused(reason) => {
                let trouble = Some(("UnsupportedValue", reason.clone()));
                vec![Condition { kind: "Accepted", trouble }]
            }
            Said::Taken { servers, .. } if is_server(reference) => {
                vec![servers.get(reference["name"].as_str()?)?.clone()]
            }
            Said::Taken { .. } => of_services.next()?.to_vec(),
        };
        let held = after.iter().position(|entry| is_own(entry, reference));
        let known = held.and_then(|held| after.get(held));
        let conditions: Vec<Value> =
            conditions.iter().map(|condition| as_json(condition, generation, known, now)).collect();
        let entry = json!({ "parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions });
        match held.and_then(|held| after.get_mut(held)) {
            Some(held) => *held = entry,
            None => after.push(entry),
        }
    }
    (after != before).then_some(after)
}

fn as_json(condition: &Condition, generation: i64, held: Option<&Value>, now: &str) -> Value {
    let held = held.and_then(|held| held["conditions"].as_array()?.iter().find(|one| one["type"] == condition.kind));
    let since =
        held.filter(|held| held["status"] == condition.status()).and_then(|held| held["lastTransitionTime"].as_str());
    json!({
        "type": condition.kind,
        "status": condition.status(),
        "reason": condition.reason(),
        "message": condition.message(),
        "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or(now),
    })
}

fn is_service(parent: &Value) -> bool {
    matches!(parent["group"].as_str(), Some("" | "core")) && parent["kind"] == "Service"
}

fn is_server(parent: &Value) -> bool {
    matches!(parent["group"].as_str(), None | Some("policy.linkerd.io")) && parent["kind"] == "Server"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn object() -> Value {
        json!({
            "spec": { "parentRefs": [
                { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front" },
                { "group": "", "kind": "Service", "name": "web", "port": 80 },
            ] },
            "status": { "parents": [{ "controllerName": "other.org/gateway", "parentRef": { "name": "front" } }] },
        })
    }

    fn said(trouble: Option<(&'static str, String)>) -> Said {
        let resolved = Condition { kind: "ResolvedRefs", trouble: None };
        let conditions = vec![[Condition { kind: "Accepted", trouble }, resolved]];
        Said::Taken { generation: 3, conditions, servers: BTreeMap::new() }
    }

    #[test]
    fn servers_and_services_get_their_own() {
        let mut object = object();
        let server = json!({ "group": "policy.linkerd.io", "kind": "Server", "name": "web" });
        object["spec"]["parentRefs"].as_array_mut().unwrap().insert(0, server.clone());
        let trouble = Some(("NoMatchingParent", "Server demo/web not found".to_owned()));
        let mut said = said(None);
        if let Said::Taken { servers, .. } = &mut said {
            servers.insert("web".into(), Condition { kind: "Accepted", trouble });
        }
        let all = parents(&object, 3, &said, "T").unwrap();
        assert_eq!((all.len(), &all[1]["parentRef"]), (3, &server));
        assert_eq!(all[1]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(all[1]["conditions"][0]["reason"], "NoMatchingParent");
        assert_eq!(all[2]["conditions"][0]["status"], "True");
        object["status"]["parents"] = Value::Array(all);
        assert_eq!(parents(&object, 3, &said, "T2"), None);
    }

    #[test]
    fn others_entries_stay_and_time_only_moves_with_the_status() {
        let mut object = object();
        let first = parents(&object, 3, &said(None), "T1").unwrap();
        assert_eq!(first[0]["controllerName"], "other.org/gateway");
        assert_eq!(first[1]["parentRef"], object["spec"]["parentRefs"][1]);
        assert_eq!(first[1]["conditions"][0]["reason"], "Accepted");
        object["status"]["parents"] = Value::Array(first);
        assert_eq!(parents(&object, 3, &said(None), "T2"), None, "nothing new is not written");
        let bad = parents(&object, 3, &said(Some(("NoMatchingParent", "gone".into()))), "T2").unwrap();
        let accepted = &bad[1]["conditions"][0];
        assert_eq!((&accepted["status"], &accepted["lastTransitionTime"]), (&json!("False"), &json!("T2")));
        assert_eq!(bad[1]["conditions"][1]["lastTransitionTime"], "T1");
        assert_eq!(bad.len(), 2);
        object["status"]["parents"].as_array_mut().unwrap().reverse();
        assert_eq!(parents(&object, 3, &said(None), "T2"), None, "nor another order");
        object["spec"]["parentRefs"][1]["name"] = json!("other");
        let moved = parents(&object, 3, &said(None), "T2").unwrap();
        assert_eq!((moved.len(), &moved[0]["controllerName"]), (2, &json!("other.org/gateway")));
        assert_eq!(moved[1]["parentRef"]["name"], "other");
    }

    #[test]
    fn another_generation_is_not_spoken_of() {
        assert_eq!(parents(&object(), 4, &said(None), "T"), None);
        let refused = parents(&object(), 4, &Said::Refused("spec.rules: no".into()), "T").unwrap();
        assert_eq!(refused[1]["conditions"][0]["reason"], "UnsupportedValue");
        assert_eq!(refused[1]["conditions"][0]["observedGeneration"], 4);
    }
}
