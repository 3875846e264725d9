//! Writing through the mesh API: with the caller's own rights on the API server, and never with control's.

use std::{fs, process::Command};

use serde_json::{Value, json};
use weir_tests::python;

use crate::{
    connect, populated, routes,
    stage::{Control, Stage},
};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesh/api.py");
const IDENTITY: &str = "weir-control.weir.serviceaccount.identity.linkerd.cluster.local";

/// Alice may edit routes and Services of a namespace, Bob nothing, the deputy may act as Carol, who may what Alice may.
const PEOPLE: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: alice, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: bob, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: deputy, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: traffic, namespace: shop}
rules:
- {apiGroups: [gateway.networking.k8s.io], resources: [httproutes], verbs: [get, create, patch, delete]}
- {apiGroups: [\"\"], resources: [services], verbs: [get, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: traffic, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: traffic}
subjects:
- {kind: ServiceAccount, name: alice, namespace: shop}
- {kind: User, apiGroup: rbac.authorization.k8s.io, name: carol}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: acts-as-carol}
rules: [{apiGroups: [\"\"], resources: [users], resourceNames: [carol], verbs: [impersonate]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: acts-as-carol}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: acts-as-carol}
subjects: [{kind: ServiceAccount, name: deputy, namespace: shop}]
";
/// In two steps: who may see the mesh is not who may change its logs.
const OPERATOR: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: logs, namespace: weir}
rules: [{apiGroups: [weir.mesh], resources: [loglevels], verbs: [update]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: logs, namespace: weir}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: logs}
subjects: [{kind: ServiceAccount, name: alice, namespace: shop}]
";

fn route(name: &str, path: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  \
         rules: [{{matches: [{{path: {path}}}], backendRefs: [{{name: web, port: 80}}]}}]\n---\n"
    )
}

fn prefix(value: &str) -> String {
    format!("{{type: PathPrefix, value: {value}}}")
}

/// People's programs: a viewer's token for the mesh, and a token of their own for the API server.
struct People<'a> {
    stage: &'a Stage,
    control: &'a Control,
}

impl People<'_> {
    fn own_token(&self, account: &str) -> String {
        self.stage.kubectl(&["-n", "shop", "create", "token", account])
    }

    fn asks(&self, own: Option<&str>, method: &str, request: &Value) -> Value {
        let [anchors, token] = ["api-anchors", "api-token"].map(|name| self.stage.path(name));
        fs::write(&anchors, self.stage.anchors()).unwrap();
        fs::write(&token, self.stage.token("weir-viewer", "weir.mesh/api", None)).unwrap();
        let mut command = Command::new(python::interpreter());
        let address = self.control.url().replace("https://", "");
        command.arg(PROGRAM).arg(address).arg(IDENTITY).args([anchors, token]);
        command.arg(json!({ method: request }).to_string()).arg("--some");
        command.args(own.into_iter().flat_map(|own| ["--own-token", own]));
        let output = command.output().expect("Python");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answers: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answers[method].clone()
    }

    /// Outcome and message of each object.
    fn applies(&self, own: &str, manifests: &str, more: Value) -> Vec<(String, Value)> {
        let mut request = more;
        request["manifests"] = manifests.into();
        let answer = self.asks(Some(own), "Apply", &request);
        let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let outcome = |result: &Value| {
            let outcome = result["outcome"].as_str().unwrap_or_default();
            (outcome.trim_start_matches("APPLY_OUTCOME_").to_owned(), result.clone())
        };
        results.iter().map(outcome).collect()
    }

    fn applies_one(&self, own: &str, manifest: &str, more: Value) -> (String, Value) {
        let mut all = self.applies(own, manifest, more);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }
}

fn prefix_of(stage: &Stage, name: &str) -> String {
    let path = "jsonpath={.spec.rules[0].matches[0].path.value}";
    stage.kubectl(&["-n", "shop", "get", "httproute", name, "--ignore-not-found", "-o", path])
}

/// Seen to fail, each part of it: with control's own credentials, without the look before writing, with `force` always.
#[test]
fn objects_are_applied_with_the_callers_rights_and_conflicts_are_told() {
    let stage = populated();
    routes::install(&stage, "httproutes");
    stage.apply(PEOPLE);
    let control = stage.control("control-0").until_ready();
    let people = People { stage: &stage, control: &control };
    let [alice, bob, deputy] = ["alice", "bob", "deputy"].map(|name| people.own_token(name));
    let first = route("web", &prefix("/one"));

    let anonymous = people.asks(None, "Apply", &json!({ "manifests": first }));
    assert_eq!(anonymous["error"], "UNAUTHENTICATED", "{anonymous}");
    assert_eq!(people.applies_one("made-up", &first, json!({})).0, "FORBIDDEN");
    let (outcome, why) = people.applies_one(&bob, &first, json!({}));
    assert!(outcome == "FORBIDDEN" && why["message"].as_str().unwrap().contains("shop:bob"), "{why}");
    assert_eq!(people.applies_one(&alice, &first, json!({"dryRun": true})).0, "CREATED");
    assert_eq!(prefix_of(&stage, "web"), "");
    assert_eq!(people.applies_one(&alice, &first, json!({})).0, "CREATED");
    assert_eq!(people.applies_one(&alice, &first, json!({})).0, "UNCHANGED");
    let second = route("web", &prefix("/two"));
    assert_eq!(people.applies_one(&alice, &second, json!({"dryRun": true})).0, "CONFIGURED");
    assert_eq!(prefix_of(&stage, "web"), "/one");
    assert_eq!(people.applies_one(&alice, &second, json!({})).0, "CONFIGURED");
    assert_eq!(prefix_of(&stage, "web"), "/two");

    // Somebody else's program owns the rules from now on.
    stage.apply(&route("web", &prefix("/three")));
    let (outcome, why) = people.applies_one(&alice, &second, json!({"fieldManager": "team"}));
    assert_eq!((outcome.as_str(), &why["conflicts"][0]["manager"]), ("CONFLICT", &json!("kubectl")), "{why}");
    assert_eq!(why["conflicts"][0]["field"], ".spec.rules", "{why}");
    assert_eq!(prefix_of(&stage, "web"), "/three");
    assert_eq!(people.applies_one(&alice, &second, json!({"fieldManager": "team", "force": true})).0, "CONFIGURED");
    assert_eq!(prefix_of(&stage, "web"), "/two");

    // As somebody else, where that is allowed.
    let third = route("carols", &prefix("/c"));
    assert_eq!(people.applies_one(&alice, &third, json!({"asUser": "carol"})).0, "FORBIDDEN");
    assert_eq!(people.applies_one(&deputy, &third, json!({})).0, "FORBIDDEN");
    assert_eq!(people.applies_one(&deputy, &third, json!({"asUser": "carol"})).0, "CREATED");

    let object =
        json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop", "name": "carols"});
    let delete = |own: &str, dry: bool| people.asks(Some(own), "Delete", &json!({"object": object, "dryRun": dry}));
    assert_eq!(delete(&bob, false)["error"], "PERMISSION_DENIED");
    assert_eq!(delete(&alice, true), json!({}));
    assert_eq!(prefix_of(&stage, "carols"), "/c");
    assert_eq!(delete(&alice, false), json!({}));
    assert_eq!(
        (delete(&alice, false)["error"].as_str(), prefix_of(&stage, "carols").as_str()),
        (Some("NOT_FOUND"), "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mesh_would_not_understand_is_not_written() {
    let stage = populated();
    routes::install(&stage, "httproutes");
    stage.apply(PEOPLE);
    let control = stage.control("control-0").until_ready();
    let people = People { stage: &stage, control: &control };
    let alice = people.own_token("alice");
    // Gateway API's own definition takes any expression.
    let bad = route("bad", "{type: RegularExpression, value: \"(\"}");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: shop}\n---\n";
    let all = people.applies(&alice, &[bad, secret.to_owned(), route("good", &prefix("/good"))].concat(), json!({}));
    let outcomes: Vec<&str> = all.iter().map(|(outcome, _)| outcome.as_str()).collect();
    assert_eq!(outcomes, ["INVALID", "INVALID", "CREATED"], "{all:?}");
    let why = |at: usize| all[at].1["message"].as_str().unwrap().to_owned();
    assert!(why(0).contains("spec.rules: matches.path.value"), "{}", why(0));
    assert!(why(1).contains("Secret"), "{}", why(1));
    assert_eq!((prefix_of(&stage, "bad"), prefix_of(&stage, "good")), (String::new(), "/good".to_owned()));
    let whole = people.asks(Some(&alice), "Apply", &json!({"manifests": "kind: HTTPRoute\n"}));
    assert!(whole["message"].as_str().unwrap().contains("manifests:1: "), "{whole}");

    let service = |annotations: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, annotations: {{{annotations}}}}}\n{more}"
        )
    };
    let breaker = "balancer.linkerd.io/failure-accrual";
    let (outcome, why) = people.applies_one(&alice, &service(&format!("{breaker}: sometimes"), ""), json!({}));
    assert!(outcome == "INVALID" && why["message"].as_str().unwrap().contains(breaker), "{why}");
    let (outcome, why) = people.applies_one(&alice, &service("", "spec: {type: NodePort}\n"), json!({}));
    assert!(outcome == "INVALID" && why["message"].as_str().unwrap().starts_with("spec: "), "{why}");
    assert_eq!(people.applies_one(&alice, &service(&format!("{breaker}: consecutive"), ""), json!({})).0, "CONFIGURED");
    let policy = people.asks(None, "Policy", &json!({"namespace": "shop", "service": "web"}));
    assert!(policy.to_string().contains("consecutive"), "{policy}");
    // Others' annotations are not hers to take.
    stage.kubectl(&["-n", "shop", "annotate", "service", "web", "timeout.linkerd.io/request=whenever"]);
    let (outcome, why) = people.applies_one(&alice, &service(&format!("{breaker}: consecutive"), ""), json!({}));
    assert!(outcome == "UNCHANGED" && why["message"].as_str().unwrap().contains("timeout.linkerd.io/request"), "{why}");

    // Log levels are no object: the right to set them is one like any other.
    let node = connect(&control, &stage, "node-a").await;
    let _node = node.attend();
    let set = json!({"set": "info"});
    assert_eq!(people.asks(Some(&alice), "LogLevels", &set)["error"], "PERMISSION_DENIED");
    assert_eq!(people.asks(None, "LogLevels", &set)["error"], "UNAUTHENTICATED");
    stage.apply(OPERATOR);
    let allowed = people.asks(Some(&alice), "LogLevels", &set);
    // This node is one of before there were such questions.
    assert_eq!(allowed["nodes"], json!([{"nodeName": "node-a", "problem": "its version does not tell"}]), "{allowed}");
}
