//! New pods that the CNI plugin announces: may they start, and captured or not? Must never let a pod of a meshed namespace start
//! uncaptured because somebody is away.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{handover::Arrival, limits};

/// What one proxy passed on from control.
#[derive(Debug, Default)]
struct Expectations {
    current: bool,
    plain: HashSet<String>,
    meshed_namespaces: HashSet<String>,
}

/// A pod whose container runtime waits for an answer.
#[derive(Debug)]
struct Waiting {
    client: u64,
    uid: String,
    namespace: String,
    since: Instant,
}

/// What the keeper has done about a pod so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress<'a> {
    /// Captured.
    Captured,
    /// Asked for by control, and refused for this reason.
    Refused(&'a str),
    /// Nobody asked for it.
    Unasked,
}

/// What is to be done about a pod that waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Wait,
    /// Tell the container runtime.
    Answer(Arrival),
    /// Control is away and the namespace is meshed: capture with the defaults, control will say more later.
    Capture,
}

/// Everything known of pods that arrive.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    // What the last proxy that spoke knows; kept while none is connected.
    said: Option<(u64, Expectations)>,
    networks: HashMap<String, PathBuf>,
    waiting: Vec<Waiting>,
}

impl Arrivals {
    /// A proxy passes on what control said.
    pub(super) fn expect(
        &mut self,
        client: u64,
        begin: bool,
        current: bool,
        plain: Vec<String>,
        namespaces: Vec<String>,
    ) {
        if begin || self.said.as_ref().is_none_or(|(known, _)| *known != client) {
            self.said = Some((client, Expectations::default()));
        }
        let Some((_, said)) = &mut self.said else { return };
        said.current = current;
        said.plain.extend(plain);
        said.meshed_namespaces.extend(namespaces);
    }

    /// A proxy or a plugin is gone: the one's word is no longer news, the other's pod will be announced again.
    pub(super) fn gone(&mut self, client: u64) {
        if let Some((_, said)) = self.said.as_mut().filter(|(known, _)| *known == client) {
            said.current = false;
        }
        self.waiting.retain(|waiting| waiting.client != client);
    }

    /// A pod has its network. False: too many wait already.
    pub(super) fn arrive(&mut self, client: u64, uid: &str, namespace: String, netns: PathBuf, now: Instant) -> bool {
        if self.waiting.len() >= limits::CNI_WAITING {
            return false;
        }
        if self.networks.len() < limits::CNI_NETWORKS {
            self.networks.insert(uid.to_owned(), netns);
        }
        self.waiting.push(Waiting { client, uid: uid.to_owned(), namespace, since: now });
        true
    }

    /// A pod's network goes away.
    pub(super) fn depart(&mut self, uid: &str) {
        self.networks.remove(uid);
    }

    /// Where a pod's network is, if the plugin has said so.
    pub(super) fn network(&self, uid: &str) -> Option<&Path> {
        self.networks.get(uid).map(PathBuf::as_path)
    }

    /// Whether somebody waits, so that time matters.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Uids of those that wait.
    pub(super) fn uids(&self) -> Vec<String> {
        self.waiting.iter().map(|waiting| waiting.uid.clone()).collect()
    }

    /// Takes those out that wait for an answer about `uid`: whom to tell.
    pub(super) fn answered(&mut self, uid: &str) -> Vec<u64> {
        let (told, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.uid == uid);
        self.waiting = waiting;
        let told: Vec<Waiting> = told;
        told.into_iter().map(|waiting| waiting.client).collect()
    }

    /// What is to be done about `uid`.
    pub(super) fn verdict(&self, uid: &str, progress: Progress<'_>, now: Instant) -> Verdict {
        let Some(waiting) = self.waiting.iter().find(|waiting| waiting.uid == uid) else { return Verdict::Wait };
        let waited = now.saturating_duration_since(waiting.since);
        let not_yet = |reason: String| Verdict::Answer(Arrival::NotYet { reason });
        let said = match progress {
            Progress::Captured => return Verdict::Answer(Arrival::Captured),
            Progress::Refused(reason) if waited >= limits::CNI_REFUSED => return not_yet(reason.to_owned()),
            Progress::Refused(_) => return Verdict::Wait,
            Progress::Unasked => self.said.as_ref().map(|(_, said)| said),
        };
        let Some(said) = said else {
            return late(
                waited,
                "no weir-proxy of this node has said yet which namespaces are meshed; look at its pod",
            );
        };
        if said.plain.contains(uid) {
            return Verdict::Answer(Arrival::Plain);
        }
        if said.current {
            return late(waited, "control has not named this pod yet; look at the log of weir-control");
        }
        match (waited >= limits::CNI_AWAY, said.meshed_namespaces.contains(&waiting.namespace)) {
            (false, _) => Verdict::Wait,
            (true, true) => Verdict::Capture,
            (true, false) => Verdict::Answer(Arrival::Plain),
        }
    }
}

fn late(waited: std::time::Duration, reason: &str) -> Verdict {
    if waited < limits::CNI_WAIT {
        return Verdict::Wait;
    }
    Verdict::Answer(Arrival::NotYet { reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(arrivals: &mut Arrivals, uid: &str, namespace: &str, now: Instant) {
        assert!(arrivals.arrive(9, uid, namespace.to_owned(), PathBuf::from("/run/netns/a"), now));
    }

    fn told(arrivals: &mut Arrivals, current: bool) {
        arrivals.expect(1, true, current, vec!["plain".to_owned()], vec!["shop".to_owned()]);
    }

    #[test]
    fn a_pod_waits_for_controls_word_while_control_is_there() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        told(&mut arrivals, true);
        for (uid, namespace) in [("new", "shop"), ("other", "plain")] {
            arrived(&mut arrivals, uid, namespace, now);
            assert_eq!(arrivals.verdict(uid, Progress::Unasked, now + limits::CNI_AWAY), Verdict::Wait);
            let late = arrivals.verdict(uid, Progress::Unasked, now + limits::CNI_WAIT);
            assert!(matches!(late, Verdict::Answer(Arrival::NotYet { .. })), "{late:?}");
        }
        let captured = arrivals.verdict("new", Progress::Captured, now);
        assert_eq!(captured, Verdict::Answer(Arrival::Captured));
        arrived(&mut arrivals, "plain", "shop", now);
        assert_eq!(arrivals.verdict("plain", Progress::Unasked, now), Verdict::Answer(Arrival::Plain));
    }

    #[test]
    fn without_control_the_namespace_decides() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        told(&mut arrivals, true);
        arrivals.gone(1);
        arrived(&mut arrivals, "a", "shop", now);
        arrived(&mut arrivals, "b", "else", now);
        assert_eq!(arrivals.verdict("a", Progress::Unasked, now), Verdict::Wait);
        let later = now + limits::CNI_AWAY;
        assert_eq!(arrivals.verdict("a", Progress::Unasked, later), Verdict::Capture);
        assert_eq!(arrivals.verdict("b", Progress::Unasked, later), Verdict::Answer(Arrival::Plain));
    }

    #[test]
    fn a_holder_that_was_told_nothing_lets_nobody_start() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrived(&mut arrivals, "a", "shop", now);
        assert_eq!(arrivals.verdict("a", Progress::Unasked, now + limits::CNI_AWAY), Verdict::Wait);
        let late = arrivals.verdict("a", Progress::Unasked, now + limits::CNI_WAIT);
        assert!(matches!(late, Verdict::Answer(Arrival::NotYet { .. })), "{late:?}");
    }

    #[test]
    fn a_refusal_is_told_when_it_lasts() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrived(&mut arrivals, "a", "shop", now);
        assert_eq!(arrivals.verdict("a", Progress::Refused("why"), now), Verdict::Wait);
        let told = arrivals.verdict("a", Progress::Refused("why"), now + limits::CNI_REFUSED);
        assert_eq!(told, Verdict::Answer(Arrival::NotYet { reason: "why".to_owned() }));
    }

    #[test]
    fn who_hung_up_is_not_answered() {
        let now = Instant::now();
        let mut arrivals = Arrivals::default();
        arrived(&mut arrivals, "a", "shop", now);
        arrivals.gone(9);
        assert!(arrivals.answered("a").is_empty() && !arrivals.is_waiting());
        arrived(&mut arrivals, "a", "shop", now);
        assert_eq!(arrivals.answered("a"), [9]);
        assert!(arrivals.network("a").is_some());
        arrivals.depart("a");
        assert!(arrivals.network("a").is_none());
    }
}
