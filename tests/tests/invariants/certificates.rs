//! Invariant 4. Mutation tried: `may_have` in control's nodes.rs answering true.

use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use weir_api::v1::{self, nodes_client::NodesClient};

use crate::stage::Stage;

fn certify(stage: &Stage, token: &str, identity: &str) -> Result<v1::CertifyResponse, Status> {
    let anchors = std::fs::read_to_string(stage.mesh.path("control/ca.crt")).unwrap();
    let request = {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![identity.to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    };
    stage.mesh.fabric.node(1).enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tls = ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(anchors))
                .domain_name("weir-control.weir.serviceaccount.identity.linkerd.cluster.local");
            let endpoint = Channel::from_static("https://10.80.0.1:8086").tls_config(tls).unwrap();
            let mut client = NodesClient::new(endpoint.connect().await.unwrap());
            let mut call = Request::new(v1::CertifyRequest {
                identity: identity.to_owned(),
                certificate_signing_request: request,
            });
            call.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            client.certify(call).await.map(tonic::Response::into_inner)
        })
    })
}

/// A node gets certificates for identities of its own pods, and for no other: not another node's, not one that no pod has.
#[test]
fn a_certificate_goes_only_to_the_node_that_runs_a_pod_of_it() {
    let stage = Stage::start();
    let token = |node: &str| std::fs::read_to_string(stage.mesh.path("tokens").join(node)).unwrap();
    let refused = |token: &str, identity: &str| certify(&stage, token, identity).unwrap_err().code();
    // The client's only pod is on node 1.
    assert!(certify(&stage, &token("node-1"), &stage.client.identity()).is_ok());
    assert_eq!(refused(&token("node-2"), &stage.client.identity()), Code::PermissionDenied);
    let nobody = "nobody.demo.serviceaccount.identity.linkerd.cluster.local";
    assert_eq!(refused(&token("node-1"), nobody), Code::PermissionDenied);
    assert_eq!(refused("weir-tests-node-3-token-0123456789", &stage.client.identity()), Code::Unauthenticated);
    assert_eq!(refused(&token("node-1"), "not-an-identity"), Code::InvalidArgument);
}
