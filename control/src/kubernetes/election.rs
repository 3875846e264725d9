//! Which replica writes what all share: a Lease, taken by turns. Must never believe to lead when another one may.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::sync::{oneshot, watch};

use super::{CONTROL, Failure, NAMESPACE, within};
use crate::limits;

/// Whether this replica leads.
#[derive(Clone, Debug)]
pub(super) struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// At this moment: a lease that could not be renewed ends by itself.
    pub(super) fn is_held(&self) -> bool {
        self.0.borrow().is_some_and(|until| until > Instant::now())
    }

    /// Resolves when it may have become another.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // The election is over: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

/// What to do about the lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Renew,
    Wait,
}

/// One replica's part.
pub(super) struct Election {
    leases: Api<Lease>,
    me: String,
    seen: Option<(LeaseSpec, Instant)>,
    leading: watch::Sender<Option<Instant>>,
}

impl Election {
    /// Of the replica `me`.
    pub(super) fn new(client: &Client, me: String) -> (Election, Leadership) {
        let (leading, leadership) = watch::channel(None);
        let election = Election { leases: Api::namespaced(client.clone(), NAMESPACE), me, seen: None, leading };
        (election, Leadership(leadership))
    }

    /// Takes part until `released`; then lets another one lead at once.
    pub(super) async fn run(mut self, mut released: oneshot::Receiver<()>) {
        let mut told = String::new();
        loop {
            match self.attempt().await {
                // Somebody else was first: the next look shows who.
                Ok(()) | Err(Failure::Conflict) => told.clear(),
                Err(error) => {
                    let error = error.to_string();
                    if error != told {
                        tracing::warn!(error, lease = CONTROL, "the lease cannot be read or written");
                        told = error;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(limits::LEASE_RETRY.mul_f64(0.9 + fastrand::f64() / 5.0)) => {}
                _stop = &mut released => break,
            }
        }
        if self.leading.borrow().is_some()
            && let Err(error) = self.release().await
        {
            tracing::warn!(%error, "the lease was not given back; another replica waits for its end");
        }
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        let asked = Instant::now();
        let lease = match within(self.leases.get(CONTROL)).await {
            Ok(lease) => lease,
            Err(Failure::NotFound) => {
                let metadata = ObjectMeta { name: Some(CONTROL.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(self.spec(&LeaseSpec::default(), Step::Take)) };
                within(self.leases.create(&PostParams::default(), &lease)).await?;
                self.lead(asked);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let step = step(&spec, &self.me, &mut self.seen, asked);
        if step == Step::Wait {
            if self.leading.send_if_modified(|until| until.take().is_some()) {
                tracing::info!(me = self.me, holder = spec.holder_identity, "another replica writes the status now");
            }
            return Ok(());
        }
        // With its resource version: whoever wrote in between wins.
        let next = Lease { spec: Some(self.spec(&spec, step)), ..lease };
        within(self.leases.replace(CONTROL, &PostParams::default(), &next)).await?;
        self.lead(asked);
        Ok(())
    }

    /// Leads from the moment that the question was asked, for less long than others wait.
    fn lead(&self, asked: Instant) {
        if hold(&self.leading, asked + limits::LEASE_RENEW_WITHIN) {
            tracing::info!(me = self.me, "this replica writes the status");
        }
    }

    fn spec(&self, before: &LeaseSpec, step: Step) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let is_renewal = step == Step::Renew;
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(limits::LEASE.as_secs()).ok(),
            acquire_time: if is_renewal { before.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(if is_renewal { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&mut self) -> Result<(), Failure> {
        let lease = within(self.leases.get(CONTROL)).await?;
        let Some(spec) = lease.spec.clone().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me)) else {
            return Ok(());
        };
        self.leading.send_replace(None);
        let spec = LeaseSpec { holder_identity: None, ..spec };
        within(self.leases.replace(CONTROL, &PostParams::default(), &Lease { spec: Some(spec), ..lease })).await?;
        Ok(())
    }
}

/// True, and news, only when it was not held before: to renew is none.
fn hold(leading: &watch::Sender<Option<Instant>>, until: Instant) -> bool {
    leading.send_if_modified(|held| held.replace(until).is_none_or(|before| before <= Instant::now()))
}

/// By this machine's clock alone: a holder is gone when its lease stayed the same for as long as it is valid.
fn step(spec: &LeaseSpec, me: &str, seen: &mut Option<(LeaseSpec, Instant)>, now: Instant) -> Step {
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    if seen.as_ref().is_none_or(|(known, _)| known != spec) {
        *seen = Some((spec.clone(), now));
    }
    if holder == me {
        return Step::Renew;
    }
    let valid = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
    let is_over = seen.as_ref().is_some_and(|(_, since)| now.duration_since(*since) >= valid);
    if holder.is_empty() || is_over { Step::Take } else { Step::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_over_only_after_it_stood_still_for_its_whole_time() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut seen = None;
        // Whatever its times say: another machine's clock wrote them.
        assert_eq!(step(&held_by("other", 0), "me", &mut seen, now), Step::Wait);
        assert_eq!(step(&held_by("other", 0), "me", &mut seen, after(14)), Step::Wait);
        assert_eq!(step(&held_by("other", 1), "me", &mut seen, after(14)), Step::Wait);
        assert_eq!(step(&held_by("other", 1), "me", &mut seen, after(28)), Step::Wait);
        assert_eq!(step(&held_by("other", 1), "me", &mut seen, after(29)), Step::Take);
    }

    #[test]
    fn a_lease_that_was_given_back_is_free_and_an_own_one_is_renewed() {
        let now = Instant::now();
        let released = LeaseSpec { holder_identity: None, ..held_by("other", 0) };
        assert_eq!(step(&released, "me", &mut None, now), Step::Take);
        assert_eq!(step(&held_by("me", 0), "me", &mut None, now), Step::Renew);
    }

    #[test]
    fn to_renew_is_no_news() {
        let (sender, mut receiver) = watch::channel(None);
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(hold(&sender, later(10)) && receiver.has_changed().unwrap());
        receiver.mark_unchanged();
        let until = later(20);
        assert!(!hold(&sender, until) && !receiver.has_changed().unwrap());
        assert_eq!(*receiver.borrow(), Some(until));
        sender.send_replace(Some(Instant::now()));
        receiver.mark_unchanged();
        assert!(hold(&sender, later(10)) && receiver.has_changed().unwrap(), "it had ended by itself");
    }

    #[test]
    fn leadership_ends_by_itself_before_others_may_take_over() {
        assert!(limits::LEASE_RENEW_WITHIN + limits::API_WITHIN <= limits::LEASE);
        let (sender, receiver) = watch::channel(Some(Instant::now() + Duration::from_secs(60)));
        let leadership = Leadership(receiver);
        assert!(leadership.is_held());
        sender.send_replace(Some(Instant::now()));
        assert!(!leadership.is_held());
    }
}
