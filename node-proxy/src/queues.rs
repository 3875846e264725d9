//! Requests that wait for a ready endpoint: bounded per destination, refused at once while a destination is in failfast.
//!
//! Must never be one gate for all: each destination has its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use dashmap::DashMap;

use crate::limits;

#[derive(Clone, Copy, Default)]
struct Queue {
    waiting: usize,
    /// When waiting is over for the first that began to wait.
    deadline: Option<Duration>,
    failfast: bool,
}

/// The queues of a node.
#[derive(Clone, Default)]
pub struct Queues(Arc<DashMap<SocketAddr, Queue>>);

/// A place in a queue.
pub struct Place {
    queues: Queues,
    destination: SocketAddr,
}

impl Queues {
    /// A place in the destination's queue; none when it is full.
    pub fn join(&self, destination: SocketAddr) -> Option<Place> {
        if self.0.len() >= limits::QUEUES && !self.0.contains_key(&destination) {
            return None;
        }
        let mut queue = self.0.entry(destination).or_default();
        if queue.waiting >= limits::QUEUE_CAPACITY {
            return None;
        }
        queue.waiting += 1;
        drop(queue);
        Some(Place { queues: self.clone(), destination })
    }

    /// Until when to wait, since the process's epoch; none while in failfast.
    pub fn deadline(&self, destination: SocketAddr, now: Duration) -> Option<Duration> {
        let mut queue = self.0.entry(destination).or_default();
        if queue.failfast {
            return None;
        }
        Some(*queue.deadline.get_or_insert(now + limits::FAILFAST))
    }

    /// Nobody came: refuse at once from now on.
    pub fn shut(&self, destination: SocketAddr) {
        self.0.entry(destination).or_default().failfast = true;
    }

    /// An endpoint is ready.
    pub fn open(&self, destination: SocketAddr) {
        if let Some(mut queue) = self.0.get_mut(&destination) {
            queue.failfast = false;
            queue.deadline = None;
        }
    }

    /// Forgets destinations that have an endpoint again or that nobody dials any more.
    pub fn retain(&self, mut keep: impl FnMut(&SocketAddr) -> bool) {
        self.0.retain(|destination, queue| queue.waiting > 0 || keep(destination));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut queue) = self.queues.0.get_mut(&self.destination) {
            queue.waiting -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESTINATION: &str = "10.0.0.1:80";

    #[test]
    fn a_full_queue_sheds_and_one_destination_does_not_fill_another() {
        let queues = Queues::default();
        let destination = DESTINATION.parse().unwrap();
        let places: Vec<_> = (0..limits::QUEUE_CAPACITY).map(|_| queues.join(destination).unwrap()).collect();
        assert!(queues.join(destination).is_none());
        assert!(queues.join("10.0.0.2:80".parse().unwrap()).is_some());
        drop(places);
        assert!(queues.join(destination).is_some());
    }

    #[test]
    fn failfast_refuses_at_once_until_an_endpoint_is_ready() {
        let queues = Queues::default();
        let destination = DESTINATION.parse().unwrap();
        let now = Duration::from_secs(7);
        assert_eq!(queues.deadline(destination, now), Some(now + limits::FAILFAST));
        assert_eq!(queues.deadline(destination, now * 2), Some(now + limits::FAILFAST), "the first waiter decides");
        queues.shut(destination);
        assert_eq!(queues.deadline(destination, now), None);
        queues.open(destination);
        assert!(queues.deadline(destination, now).is_some());
    }
}
