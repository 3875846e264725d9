//! What control says about pods on the pods themselves: the condition by which replicas and restarts know who speaks mTLS, and notices.
//!
//! Must never set the condition of a pod that its node has not called ready.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use tokio::time::{MissedTickBehavior, interval};
use weir_api::v1;

use super::{Failure, election::Leadership, watch, within};
use crate::{
    ca,
    index::Index,
    limits,
    notices::{Notice, Reason},
    objects::{Kind, MESHED, OPTED_OUT, Pod},
    plane::Plane,
};

/// Looks after all pods.
pub(super) struct Pods {
    client: Client,
    plane: Arc<Plane>,
    leadership: Leadership,
    // Conditions on their way: until the watch shows them, or did not for too long.
    sent: HashMap<Arc<str>, Instant>,
    // What was said of pods on which people have to correct something.
    refused: HashSet<Notice>,
    late: HashMap<String, Late>,
}

#[derive(Debug)]
struct Late {
    since: Instant,
    is_told: bool,
}

impl Pods {
    /// Nothing said yet.
    pub(super) fn new(client: Client, plane: Arc<Plane>, leadership: Leadership) -> Pods {
        Pods { client, plane, leadership, sent: HashMap::new(), refused: HashSet::new(), late: HashMap::new() }
    }

    /// Looks when something changed, and now and then.
    pub(super) async fn follow(mut self) {
        let mut changes = self.plane.changes();
        let mut rescan = interval(limits::PODS_RESCAN);
        rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_rescan = tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => false,
                    Err(_gone) => return,
                },
                () = self.leadership.changed() => false,
                _tick = rescan.tick() => true,
            };
            changes.mark_unchanged();
            if self.plane.is_loaded() {
                self.sent.retain(|_, at| at.elapsed() < limits::CONDITION_RETRY);
                self.mark().await;
                if is_rescan {
                    self.notice_late();
                }
                if self.leadership.is_held() {
                    self.unmark().await;
                    self.notice_refused();
                }
            }
            tokio::time::sleep(limits::PODS_PAUSE).await;
        }
    }

    async fn mark(&mut self) {
        let (due, installation): (Vec<Arc<Pod>>, _) = {
            let index = self.plane.index();
            let due = index.unmarked().map(|(_, pod)| pod).filter(|pod| !self.sent.contains_key(&pod.uid));
            (due.cloned().collect(), index.installation().to_owned())
        };
        let since = format!("peers speak mTLS to it since {}, by installation {installation}", Timestamp::now());
        for pod in self.patch(due, "True", "Captured", &since).await {
            let note = "captured by its node, with a certificate: its new connections are encrypted and counted";
            self.plane.notify(Notice::of(&pod, Reason::Meshed, note).on(&since));
        }
    }

    async fn unmark(&mut self) {
        let due: Vec<Arc<Pod>> = {
            let index = self.plane.index();
            let due = index.wrongly_marked().map(|(_, pod)| pod);
            due.filter(|pod| !self.sent.contains_key(&pod.uid)).cloned().collect()
        };
        let since = format!("opted out at {}", Timestamp::now());
        for pod in self.patch(due, "False", OPTED_OUT, &since).await {
            let note = "opted out: its new connections are left alone, open ones live on until they end";
            self.plane.notify(Notice::of(&pod, Reason::Unmeshed, note).on(pod.mark.as_deref().unwrap_or_default()));
        }
    }

    /// Sets the condition of pods; returns those whose was set.
    async fn patch(&mut self, pods: Vec<Arc<Pod>>, status: &str, reason: &str, message: &str) -> Vec<Arc<Pod>> {
        let now = Instant::now();
        self.sent.extend(pods.iter().map(|pod| (Arc::clone(&pod.uid), now)));
        let calls = pods.into_iter().map(|pod| {
            // What comes back is not looked at: it need not be read as a pod.
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), &pod.reference.namespace, &watch::resource(Kind::Pod, "v1"));
            let patch = condition(&pod, status, reason, message);
            async move {
                let params = PatchParams::default();
                match within(api.patch_status(&pod.reference.name, &params, &Patch::Strategic(patch))).await {
                    Ok(_) => Some(pod),
                    // Gone, or another pod of that name: nothing to say about.
                    Err(Failure::NotFound | Failure::Conflict) => None,
                    Err(error) => {
                        let name = &pod.reference.name;
                        tracing::warn!(%error, namespace = pod.reference.namespace, name, "the pod's condition cannot be set; it is tried again");
                        None
                    }
                }
            }
        });
        let done: Vec<Option<Arc<Pod>>> =
            stream::iter(calls).buffer_unordered(limits::CONDITIONS_AT_ONCE).collect().await;
        done.into_iter().flatten().collect()
    }

    fn notice_refused(&mut self) {
        let now: HashSet<Notice> = {
            let index = self.plane.index();
            index.pods().filter_map(|pod| refusal(&index, pod)).collect()
        };
        for notice in now.difference(&self.refused) {
            self.plane.notify(notice.clone());
        }
        self.refused = now;
    }

    fn opted_in(&self, uid: &str) -> Option<Arc<Pod>> {
        let index = self.plane.index();
        index.pod_by_uid(uid).filter(|pod| index.is_enabled(pod)).cloned()
    }

    fn notice_late(&mut self) {
        let soon = self.plane.authority.life() / limits::CERTIFICATE_LATE_PART;
        let least = ca::unix_now() + i64::try_from(soon.as_secs()).unwrap_or(0);
        let late = self.plane.statuses(|status| status.captured && status.certificate_not_after < least);
        let uids: HashSet<&str> = late.iter().map(|status| status.uid.as_str()).collect();
        self.late.retain(|uid, _| uids.contains(uid.as_str()));
        for status in &late {
            let Some(pod) = self.opted_in(&status.uid) else { continue };
            let late = self.late.entry(status.uid.clone()).or_insert(Late { since: Instant::now(), is_told: false });
            if !late.is_told && late.since.elapsed() >= limits::CERTIFICATE_WITHIN {
                late.is_told = true;
                self.plane.notify(
                    Notice::of(&pod, Reason::CertificateLate, late_note(&pod, status))
                        .on(&Timestamp::now().to_string()),
                );
            }
        }
    }
}

/// What people should correct on a pod that is opted in.
fn refusal(index: &Index, pod: &Pod) -> Option<Notice> {
    if index.is_refused(pod) {
        let note = format!("opted in, but cannot be meshed: {}", pod.unfit?.reason());
        return Some(Notice::of(pod, Reason::MeshRefused, note));
    }
    let flaw = pod.flaw.as_deref().filter(|_| index.is_enabled(pod))?;
    Some(Notice::of(pod, Reason::SettingRefused, flaw))
}

fn late_note(pod: &Pod, status: &v1::WorkloadStatus) -> String {
    let node = &pod.reference.node_name;
    if status.certificate_not_after == 0 {
        return format!(
            "captured, but still without a certificate: its connections wait; look at the logs of weir-proxy on node {node} and of weir-control"
        );
    }
    let left = SignedDuration::from_secs(status.certificate_not_after - ca::unix_now());
    format!(
        "its certificate ends in {} minutes and was not renewed; look at the logs of weir-proxy on node {node} and of weir-control",
        left.as_mins()
    )
}

fn condition(pod: &Pod, status: &str, reason: &str, message: &str) -> serde_json::Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    serde_json::json!({
        // Another pod of that name is refused as a conflict.
        "metadata": { "uid": &*pod.uid },
        "status": { "conditions": [{
            "type": MESHED, "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
        }] },
    })
}
