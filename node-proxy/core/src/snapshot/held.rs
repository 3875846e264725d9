//! What a snapshot holds, by the keys of control's resources. Must never forget a kind: what is not found here is never taken away.

use std::net::SocketAddr;

use weir_api::v1::{self, ResourceKind};

use super::Snapshot;

impl Snapshot {
    /// Takes one resource away.
    pub(super) fn remove(&mut self, key: &v1::ResourceKey) {
        let name = key.name.as_str();
        match key.kind() {
            ResourceKind::Workload => {
                self.workloads.remove(name);
            }
            ResourceKind::Destination => {
                if let Ok(address) = name.parse::<SocketAddr>() {
                    self.destination_resources.remove(&address);
                    self.destinations.remove(&address);
                }
            }
            ResourceKind::Endpoints => {
                self.slices.remove(name);
            }
            ResourceKind::TrustBundle => {
                self.trust.remove(name);
            }
            ResourceKind::PlainPod => {
                self.plain_pods.remove(name);
            }
            ResourceKind::MeshedNamespace => {
                self.meshed_namespaces.remove(name);
            }
            ResourceKind::InboundServer => {
                self.servers.remove(name);
            }
            ResourceKind::Unspecified => {}
        }
    }

    /// How many resources there are.
    pub(super) fn held(&self) -> usize {
        let configuration = self.workloads.len() + self.destination_resources.len() + self.slices.len();
        let names = self.plain_pods.len() + self.meshed_namespaces.len();
        configuration + names + self.trust.len() + self.servers.len()
    }

    /// Whether this one is there.
    pub(super) fn holds(&self, key: &v1::ResourceKey) -> bool {
        let name = key.name.as_str();
        match key.kind() {
            ResourceKind::Workload => self.workloads.contains_key(name),
            ResourceKind::Destination => {
                name.parse().is_ok_and(|address| self.destination_resources.contains_key(&address))
            }
            ResourceKind::Endpoints => self.slices.contains_key(name),
            ResourceKind::TrustBundle => self.trust.contains_key(name),
            ResourceKind::PlainPod => self.plain_pods.contains_key(name),
            ResourceKind::MeshedNamespace => self.meshed_namespaces.contains_key(name),
            ResourceKind::InboundServer => self.servers.contains_key(name),
            ResourceKind::Unspecified => false,
        }
    }
}
