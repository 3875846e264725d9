//! Requests that wait for a ready endpoint: bounded per service that they are balanced over, refused at once while that is in failfast.
//!
//! Must never be one gate for all: each dialled address has its own, and there each backend of its routes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dashmap::DashMap;
use tokio::sync::watch;

use crate::limits;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Goal {
    /// The dialled address.
    pub dialled: SocketAddr,
    /// Namespace, name and port of the backend that a route chose.
    pub backend: Option<(Arc<str>, Arc<str>, u16)>,
}

#[derive(Clone, Copy, Default)]
struct Queue {
    waiting: usize,
    /// When waiting is over for the first that began to wait.
    deadline: Option<Duration>,
    failfast: bool,
}

/// The queues of a node.
#[derive(Clone, Default)]
pub struct Queues {
    queues: Arc<DashMap<Goal, Queue>>,
    available: watch::Sender<()>,
}

/// A place in a queue.
pub struct Place {
    queues: Queues,
    goal: Goal,
}

impl Queues {
    /// A place in the queue; none when it is full.
    pub fn join(&self, goal: &Goal) -> Option<Place> {
        if self.queues.len() >= limits::QUEUES && !self.queues.contains_key(goal) {
            return None;
        }
        let mut queue = self.queues.entry(goal.clone()).or_default();
        if queue.waiting >= limits::QUEUE_CAPACITY {
            return None;
        }
        queue.waiting += 1;
        drop(queue);
        Some(Place { queues: self.clone(), goal: goal.clone() })
    }

    /// Until when to wait, since the process's epoch; none while in failfast.
    pub fn deadline(&self, goal: &Goal, now: Duration) -> Option<Duration> {
        let mut queue = self.queues.entry(goal.clone()).or_default();
        if queue.failfast {
            return None;
        }
        Some(*queue.deadline.get_or_insert(now + limits::FAILFAST))
    }

    /// Nobody came: refuse at once from now on.
    pub fn shut(&self, goal: &Goal) {
        self.queues.entry(goal.clone()).or_default().failfast = true;
    }

    /// A breaker lets requests through to an endpoint again, or its next trial is due at once.
    pub fn available(&self) {
        self.available.send_replace(());
    }

    /// Wakes when that is so of any endpoint.
    pub fn availability(&self) -> watch::Receiver<()> {
        self.available.subscribe()
    }

    /// An endpoint is ready.
    pub fn open(&self, goal: &Goal) {
        if let Some(mut queue) = self.queues.get_mut(goal) {
            queue.failfast = false;
            queue.deadline = None;
        }
    }

    /// Forgets what has an endpoint again or is not dialled any more.
    pub fn retain(&self, mut keep: impl FnMut(&Goal) -> bool) {
        self.queues.retain(|goal, queue| queue.waiting > 0 || keep(goal));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut queue) = self.queues.queues.get_mut(&self.goal) {
            queue.waiting -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(dialled: &str, backend: Option<&str>) -> Goal {
        let backend = backend.map(|name| (Arc::from("shop"), Arc::from(name), 80));
        Goal { dialled: dialled.parse().unwrap(), backend }
    }

    #[test]
    fn a_full_queue_sheds_and_one_does_not_fill_another() {
        let queues = Queues::default();
        let full = goal("10.0.0.1:80", None);
        let places: Vec<_> = (0..limits::QUEUE_CAPACITY).map(|_| queues.join(&full).unwrap()).collect();
        assert!(queues.join(&full).is_none());
        assert!(queues.join(&goal("10.0.0.2:80", None)).is_some());
        assert!(queues.join(&goal("10.0.0.1:80", Some("canary"))).is_some());
        drop(places);
        assert!(queues.join(&full).is_some());
    }

    #[test]
    fn failfast_refuses_at_once_until_an_endpoint_is_ready() {
        let queues = Queues::default();
        let goal = goal("10.0.0.1:80", None);
        let now = Duration::from_secs(7);
        assert_eq!(queues.deadline(&goal, now), Some(now + limits::FAILFAST));
        assert_eq!(queues.deadline(&goal, now * 2), Some(now + limits::FAILFAST), "the first waiter decides");
        queues.shut(&goal);
        assert_eq!(queues.deadline(&goal, now), None);
        queues.open(&goal);
        assert!(queues.deadline(&goal, now).is_some());
    }
}
