//! Pods that leave their Service: when control was told, and when the last request came. Both by the one clock of both nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufReader,
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use weir_tests::cluster::Running;

use crate::shop::Shop;

/// Seconds since 1970.
type Clock = f64;

/// Watches the servers that are there when it begins.
pub(crate) struct Leaving {
    /// `[pod/web-1/nginx] 1767000000.123 curl/8`, to the end of each.
    requests: Option<Running>,
    watcher: Option<Running>,
    watched: JoinHandle<BTreeMap<String, Clock>>,
}

impl Leaving {
    /// Begins.
    pub(crate) fn watch(shop: &Shop) -> Leaving {
        let namespace = ["-n", shop.namespace.as_str()];
        let follow = ["logs", "--follow", "--prefix", "--selector", "app=web", "--max-log-requests", "20"];
        let requests = shop.cluster.start_kubectl(&[&namespace[..], &follow].concat());
        let selector = "kubernetes.io/service-name=web";
        let watch = ["get", "endpointslices", "--selector", selector, "--watch", "--output", "json"];
        let mut watcher = shop.cluster.start_kubectl(&[&namespace[..], &watch].concat());
        let slices = serde_json::Deserializer::from_reader(BufReader::new(watcher.stdout())).into_iter::<Value>();
        let watched = std::thread::spawn(move || {
            let mut last = BTreeSet::new();
            let mut left = BTreeMap::new();
            for slice in slices.map_while(Result::ok) {
                let now_ready = ready(&slice);
                left.extend(last.difference(&now_ready).map(|pod: &String| (pod.clone(), now())));
                last = now_ready;
            }
            left
        });
        Leaving { requests: Some(requests), watcher: Some(watcher), watched }
    }

    /// For each server that was there and has left: seconds from then to its last request that was not kubelet's (negative: before).
    ///
    /// # Panics
    /// When one of them was never asked: then its last request says nothing.
    pub(crate) fn last_requests(mut self, servers: usize) -> Vec<f64> {
        let text = self.requests.take().expect("once").output();
        drop(self.watcher.take());
        let left = self.watched.join().expect("a watch");
        let mut last: BTreeMap<String, Clock> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.contains("kube-probe")) {
            let mut words = line.split(' ');
            let pod = words.next().and_then(|prefix| prefix.split('/').nth(1));
            if let (Some(pod), Some(at)) = (pod, words.next().and_then(|at| at.parse::<Clock>().ok())) {
                let latest = last.entry(pod.to_owned()).or_insert(at);
                *latest = latest.max(at);
            }
        }
        assert_eq!(last.len(), servers, "{last:?}");
        let after =
            |(pod, at): (&String, &Clock)| at - left.get(pod).unwrap_or_else(|| panic!("{pod} never left: {left:?}"));
        last.iter().map(after).collect()
    }
}

/// Names of the pods that a slice says are ready.
fn ready(slice: &Value) -> BTreeSet<String> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.filter_map(|endpoint| Some(endpoint["targetRef"]["name"].as_str()?.to_owned())).collect()
}

fn now() -> Clock {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}
