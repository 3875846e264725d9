//! Pods that leave their Service: when control was told, and when the last request came. Both by the one clock of both nodes.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

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
        let ready = r#"jsonpath={range .endpoints[?(@.conditions.ready==true)]}{.targetRef.name} {end}{"\n"}"#;
        let selector = "kubernetes.io/service-name=web";
        let watch = ["get", "endpointslices", "--selector", selector, "--watch", "--output", ready];
        let mut watcher = shop.cluster.start_kubectl(&[&namespace[..], &watch].concat());
        let lines = BufReader::new(watcher.stdout()).lines().map_while(Result::ok);
        let watched = std::thread::spawn(move || {
            let mut last = String::new();
            let mut left = BTreeMap::new();
            for line in lines {
                let is_gone = |pod: &&str| !line.split(' ').any(|other| other == *pod);
                left.extend(last.split_whitespace().filter(is_gone).map(|pod| (pod.to_owned(), now())));
                last = line;
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

fn now() -> Clock {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs_f64()
}
