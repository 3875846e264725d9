//! HTTPRoutes on the cluster, with Gateway API's own definitions and admission.

use std::{env, fs, path::PathBuf, time::Instant};

use weir_tests::{cluster::PATIENCE, wait};

use crate::{
    load::{Load, Stream},
    shop::{Shop, figure},
};

const DEFINITION: &str = "httproutes.gateway.networking.k8s.io";

/// Each backend marks its answers.
fn route(namespace: &str, first: u32, second: u32) -> String {
    let backend = |name: &str, weight: u32| {
        format!(
            "{{name: {name}, port: 80, weight: {weight}, filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-backend, value: {name}}}]}}}}]}}"
        )
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, namespace: {namespace}}}\nspec:\n  parentRefs: [{{group: \"\", kind: Service, name: web, port: 80}}]\n  rules: [{{backendRefs: [{}, {}]}}]\n",
        backend("web", first),
        backend("canary", second)
    )
}

fn canary(namespace: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: canary, namespace: {namespace}}}\nspec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: http}}]}}\n"
    )
}

/// The definition, for as long as the test needs it.
struct Definition<'a>(&'a Shop);

impl<'a> Definition<'a> {
    fn install(shop: &'a Shop) -> Definition<'a> {
        let folder = env::var_os("WEIR_GATEWAY_API").map(PathBuf::from);
        let folder = folder.expect("WEIR_GATEWAY_API is not set: run `cargo xtask cluster test`");
        let text = fs::read_to_string(folder.join("gateway.networking.k8s.io_httproutes.yaml")).unwrap();
        shop.cluster.apply(&text);
        // kubectl gives up at once on a definition that has no condition yet.
        let established = ["wait", &format!("crd/{DEFINITION}"), "--for=condition=Established", "--timeout=10s"];
        let is_established = || shop.cluster.try_kubectl(&established).status.success().then_some(());
        wait::until("the definition is established", PATIENCE, is_established);
        Definition(shop)
    }
}

impl Drop for Definition<'_> {
    fn drop(&mut self) {
        let _output = self.0.cluster.try_kubectl(&["delete", "crd", DEFINITION, "--ignore-not-found", "--timeout=60s"]);
    }
}

/// A canary from nothing to all, under load: no request fails, each step is in force soon, the status says so, and without the route all
/// is as before.
#[test]
fn a_canary_by_an_http_route_fails_no_request() {
    let shop = Shop::open("routes", 4);
    let _definition = Definition::install(&shop);
    shop.mesh(4);
    let load = Load::begin(&shop);
    shop.cluster.apply(&canary(&shop.namespace));
    shop.cluster.apply(&route(&shop.namespace, 1, 0));
    let conditions = ["Accepted", "ResolvedRefs"];
    for condition in conditions {
        let path = format!("jsonpath={{.status.parents[0].conditions[?(@.type==\"{condition}\")].status}}=True");
        shop.cluster.kubectl(&[
            "-n",
            &shop.namespace,
            "wait",
            "httproute/web",
            &format!("--for={path}"),
            "--timeout=30s",
        ]);
    }
    let backends = || {
        let said =
            shop.client(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do curl -sS -o /dev/null -D - http://web/; done"]);
        let named = said.lines().filter_map(|line| line.strip_prefix("x-backend: ")).map(|name| name.trim().to_owned());
        let named: Vec<String> = named.collect();
        (said.matches("HTTP/1.1 200").count(), named)
    };
    wait::until("the route is in force", PATIENCE, || (backends().1.len() == 8).then_some(()));
    assert_eq!(backends(), (8, vec!["web".to_owned(); 8]));
    for (first, second) in [(9, 1), (1, 1), (0, 1)] {
        shop.cluster.apply(&route(&shop.namespace, first, second));
    }
    let applied = Instant::now();
    wait::until("all goes to the canary", PATIENCE, || (backends().1 == vec!["canary".to_owned(); 8]).then_some(()));
    figure(
        "a route applied: in force at the client's node after (one exec in a pod)",
        format!("{:?}", applied.elapsed()),
    );
    shop.cluster.kubectl(&["-n", &shop.namespace, "delete", "httproute", "web"]);
    wait::until("no route", PATIENCE, || (backends() == (8, Vec::new())).then_some(()));
    load.end().is_whole(Stream::Lives);
}
