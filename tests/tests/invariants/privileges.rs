//! The process that parses what the network says holds no privilege, and serves all the same.

use crate::stage::Stage;

/// One field of `/proc/PID/status`.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_once(':').unwrap().1.trim().to_owned()
}

#[test]
fn the_proxy_serves_without_any_capability() {
    let stage = Stage::start();
    for service in [&stage.far_service, &stage.service] {
        let answer = stage.client.get(&format!("http://{service}/name"));
        assert!(answer.starts_with("web-"), "{answer}");
    }
    for node in [0, 1] {
        let worker = stage.mesh.worker(node).unwrap();
        let tasks = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap();
        for task in tasks.flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap();
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(u64::from_str_radix(&field(&status, set), 16), Ok(0), "{set} of a thread of {worker}");
            }
            assert_eq!(field(&status, "NoNewPrivs"), "1");
            assert!(field(&status, "Uid").split_whitespace().all(|uid| uid == "2102"), "{}", field(&status, "Uid"));
        }
    }
}
