//! The built `weir` against an API server of fixed answers: what it asks, prints and says.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Answers by method and path, without the query.
type Answers = BTreeMap<String, (u16, Value)>;

struct Api {
    folder: TempDir,
    answers: Arc<Mutex<Answers>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Api {
    /// Serves until the test ends; what has no answer is not found.
    fn start() -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", listener.local_addr().unwrap())}}],
            "users": [{"name": "u", "user": {}}],
        });
        std::fs::write(folder.path().join("config"), kubeconfig.to_string()).unwrap();
        let api = Api { folder, answers: Arc::default(), heads: Arc::default() };
        let (answers, heads) = (Arc::clone(&api.answers), Arc::clone(&api.heads));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answers, heads) = (Arc::clone(&answers), Arc::clone(&heads));
                thread::spawn(move || serve(stream, &answers, &heads));
            }
        });
        api.answer(
            "GET /version",
            json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        );
        api
    }

    fn answer(&self, call: &str, body: Value) {
        self.refuse(call, 200, body);
    }

    fn refuse(&self, call: &str, code: u16, body: Value) {
        self.answers.lock().unwrap().insert(call.to_owned(), (code, body));
    }

    /// An installation that was rendered with these arguments.
    fn installed(&self, arguments: &[&str]) {
        let rendered = self.weir(&[&["install", "-o", "json"], arguments].concat());
        let list: Value = serde_json::from_slice(&rendered.stdout).unwrap();
        for object in list["items"].as_array().unwrap() {
            let plural = match object["kind"].as_str().unwrap() {
                "NetworkPolicy" => "networkpolicies".to_owned(),
                kind => format!("{}s", kind.to_lowercase()),
            };
            let version = object["apiVersion"].as_str().unwrap();
            let group = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
            let namespaced = object.pointer("/metadata/namespace").is_some();
            let folder = if namespaced { "/namespaces/weir" } else { "" };
            let path = format!("GET {group}{folder}/{plural}");
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap();
            self.answer(&format!("{path}/{name}"), object.clone());
            let mut answers = self.answers.lock().unwrap();
            let empty = json!({"apiVersion": version, "kind": "List", "metadata": {}, "items": []});
            let (_, all) = answers.entry(path).or_insert((200, empty));
            all["items"].as_array_mut().unwrap().push(object.clone());
        }
    }

    fn weir(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.env("KUBECONFIG", self.folder.path().join("config")).args(arguments).output().unwrap()
    }
}

fn serve(stream: TcpStream, answers: &Mutex<Answers>, heads: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let call: Vec<&str> = head.split([' ', '?']).take(2).collect();
        let missing = || (404, json!({"kind": "Status", "code": 404, "message": "not there", "reason": "NotFound"}));
        let (code, answer) = answers.lock().unwrap().get(&call.join(" ")).cloned().unwrap_or_else(missing);
        heads.lock().unwrap().push(head);
        let answer = answer.to_string();
        let response = format!("HTTP/1.1 {code} x\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        if reader.get_mut().write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn forbidden() -> Value {
    json!({"kind": "Status", "code": 403, "message": "user bob cannot", "reason": "Forbidden"})
}

#[test]
fn an_upgrade_keeps_what_was_set() {
    let api = Api::start();
    let none = api.weir(&["upgrade"]);
    assert!(!none.status.success() && err(&none).contains("run `weir install`"), "{none:?}");
    api.installed(&["--ha", "--set", "proxy.log=debug"]);
    let same = out(&api.weir(&["upgrade"]));
    assert!(same.contains("replicas: 3") && same.contains("--log=debug"), "{same}");
    let back = out(&api.weir(&["upgrade", "--set", "ha=null,trustDomain=new.example"]));
    assert!(back.contains("replicas: 1") && back.contains("--log=debug"), "{back}");
    assert!(back.contains("--trust-domain=new.example"), "{back}");
    let wrong = api.weir(&["upgrade", "--set", "trustDomian=x"]);
    assert!(err(&wrong).contains("is trustDomain meant?") && out(&wrong).is_empty(), "{wrong:?}");
}

#[test]
fn helms_installations_are_left_to_helm() {
    let api = Api::start();
    api.installed(&[]);
    let path = "GET /api/v1/namespaces/weir/configmaps/weir-config";
    let (_, mut map) = api.answers.lock().unwrap()[path].clone();
    map["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": "weir"});
    api.answer(path, map);
    for command in ["upgrade", "prune"] {
        let refused = api.weir(&[command]);
        assert!(err(&refused).contains("`helm upgrade`") && out(&refused).is_empty(), "{refused:?}");
    }
}

#[test]
fn what_this_version_does_not_have_is_pruned() {
    let api = Api::start();
    api.installed(&["--ha"]);
    assert!(out(&api.weir(&["prune"])).is_empty());
    // As if it had been switched off since.
    let (_, mut map) = api.answers.lock().unwrap()["GET /api/v1/namespaces/weir/configmaps/weir-config"].clone();
    let values = map["data"]["values.yaml"].as_str().unwrap().replace("\"ha\":true", "\"ha\":false");
    map["data"]["values.yaml"] = json!(values);
    api.answer("GET /api/v1/namespaces/weir/configmaps/weir-config", map);
    let pruned = api.weir(&["prune", "-o", "json"]);
    let list: Value = serde_json::from_slice(&pruned.stdout).unwrap();
    let kinds: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|item| &item["kind"]).collect();
    assert_eq!(kinds, ["PodDisruptionBudget"], "{pruned:?}");
}

#[test]
fn everything_is_uninstalled_and_the_namespace_last() {
    let api = Api::start();
    api.installed(&[]);
    // A group that this cluster does not have, asked for by somebody who may list only what is there.
    api.refuse("GET /apis/monitoring.coreos.com/v1/namespaces/weir/podmonitors", 403, forbidden());
    let all = api.weir(&["uninstall", "-o", "json"]);
    let list: Value = serde_json::from_slice(&all.stdout).unwrap_or_else(|error| panic!("{error}: {all:?}"));
    let kinds: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"ServiceAccount"), Some(&"Namespace")), "{kinds:?}");
    let rendered: Value = serde_json::from_slice(&api.weir(&["install", "-o", "json"]).stdout).unwrap();
    assert_eq!(kinds.len(), rendered["items"].as_array().unwrap().len(), "{kinds:?}");
    let mesh = out(&api.weir(&["uninstall", "--stage", "mesh"]));
    assert!(mesh.contains("kind: DaemonSet") && !mesh.contains("kind: Cluster") && !mesh.contains("kind: Namespace"));
}

#[test]
fn a_check_names_what_is_missing() {
    let api = Api::start();
    api.installed(&[]);
    api.answer("GET /api/v1/namespaces/weir/services", json!({"kind": "List", "metadata": {}, "items": []}));
    api.refuse("GET /apis/rbac.authorization.k8s.io/v1/clusterroles", 403, forbidden());
    let check = api.weir(&["check", "--wait", "0s"]);
    let text = out(&check);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    for part in [
        "√ can query the Kubernetes API",
        "× control plane services exist\n    missing: weir-control, weir-metrics; run",
        "‼ all control plane objects can be seen\n    you may not list clusterroles: not checked",
        "√ control plane daemonsets exist",
        "× control plane replicas are ready\n    0 of 1 ready",
        "× control can be reached",
        "Status check results are ×",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let short = out(&api.weir(&["check", "--wait", "0s", "-o", "short"]));
    assert!(!short.contains('√') && short.contains("missing: weir-control, weir-metrics"), "{short}");
    let json: Value = serde_json::from_slice(&api.weir(&["check", "--wait", "0s", "-o", "json"]).stdout).unwrap();
    assert_eq!((&json["success"], &json["categories"][0]["categoryName"]), (&false.into(), &"kubernetes-api".into()));
}

#[test]
fn before_an_installation_rights_are_checked() {
    let api = Api::start();
    let review = |allowed: bool| {
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": {},
            "status": {"allowed": allowed}})
    };
    let call = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    api.answer(call, review(true));
    let good = api.weir(&["check", "--pre"]);
    assert!(good.status.success() && out(&good).contains("√ can create clusterroles"), "{good:?}");
    api.answer(call, review(false));
    let bad = api.weir(&["check", "--pre", "--as", "bob", "--as-group", "dev", "--as-group", "ops"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(out(&bad).contains("× can create namespaces\n    you may not create namespaces"), "{bad:?}");
    let heads = api.heads.lock().unwrap().join("").to_lowercase();
    for header in ["impersonate-user: bob", "impersonate-group: dev", "impersonate-group: ops"] {
        assert!(heads.contains(header), "{header}");
    }
    let mesh = out(&api.weir(&["check", "--pre", "--stage", "mesh"]));
    assert!(mesh.contains("daemonsets") && !mesh.contains("clusterroles"), "{mesh}");
    api.installed(&[]);
    assert!(out(&api.weir(&["check", "--pre"])).contains("use `weir upgrade`"));
}

#[test]
fn refusals_say_what_to_ask_for() {
    let api = Api::start();
    let none = api.weir(&["stat"]);
    assert!(!none.status.success() && err(&none).contains("not there"), "{none:?}");
    api.answer("GET /api/v1/namespaces/weir/pods", json!({"kind": "PodList", "metadata": {}, "items": []}));
    for call in [
        "GET /api/v1/namespaces/weir/configmaps/weir-trust-anchors",
        "POST /api/v1/namespaces/weir/serviceaccounts/weir-viewer/token",
        "GET /api/v1/namespaces/weir/pods",
    ] {
        api.refuse(call, 403, forbidden());
    }
    let refused = api.weir(&["stat"]);
    assert!(err(&refused).contains("user bob cannot") && err(&refused).contains("Role weir-user"), "{refused:?}");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = std::fs::read_to_string(api.folder.path().join("config")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["clusters"][0]["cluster"]["server"] = json!(format!("http://{gone}"));
    std::fs::write(api.folder.path().join("config"), config.to_string()).unwrap();
    let unreachable = api.weir(&["stat"]);
    assert!(
        err(&unreachable).contains("cannot be reached") && err(&unreachable).contains("--context"),
        "{unreachable:?}"
    );
}

#[test]
fn a_plugin_of_kubectl_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-weir");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weir"), &plugin).unwrap();
    let help = Command::new(&plugin).args(["stat", "--help"]).output().unwrap();
    assert!(out(&help).contains("Usage: kubectl weir stat"), "{help:?}");
    let wrong = Command::new(&plugin).arg("frob").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
