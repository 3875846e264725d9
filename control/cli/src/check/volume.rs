//! The volume of the holder's socket. Must never call one stuck that may still be bound.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;

use super::finding::{Finding, Verdict, found};
use crate::cluster::Cluster;

const VOLUME: &str = "weir-run";

/// Of a volume that is there and may be looked at; whether it has to be there is for others to say.
pub(super) async fn findings(cluster: &Cluster, category: &str) -> Option<(String, Finding)> {
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let volume = cluster.ask("reading PersistentVolume weir-run", volumes.get_opt(VOLUME)).await.ok()??;
    Some(found(category, "volume weir-run can be bound", stuck(&volume)))
}

/// Kubernetes notes the uid of the claim, and binds the volume to no other: nor to a later one of the same name.
fn stuck(volume: &PersistentVolume) -> Option<(Verdict, String)> {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    ["Released", "Failed"].contains(&phase).then(|| {
        let hint = format!(
            "it is {phase}: the claim of an earlier installation was deleted without it, and proxies will wait for it for ever; `kubectl delete pv {VOLUME}` (it holds no data), then apply `weir install --stage cluster` again"
        );
        (Verdict::Error, hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_a_claim_that_is_gone_is_named_with_what_to_do() {
        let of = |phase: &str| stuck(&serde_json::from_value(serde_json::json!({"status": {"phase": phase}})).unwrap());
        let (verdict, hint) = of("Released").unwrap();
        assert!(verdict == Verdict::Error && hint.contains("kubectl delete pv weir-run"), "{hint}");
        assert!(["Available", "Bound", "Pending"].iter().all(|phase| of(phase).is_none()));
    }
}
