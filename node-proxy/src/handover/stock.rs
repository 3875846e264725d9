//! Dial sockets in stock, so that a dial costs no round trip to the holder. Must never hand out a socket of a past enrolment.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::Arc,
    time::Instant,
};

use tokio::sync::Notify;

use super::{Family, SocketKind};
use crate::limits;

const KINDS: usize = 4;

/// What came of asking.
pub(super) enum Taken {
    /// A socket.
    Socket(OwnedFd),
    /// None there. Wait for this, then ask again.
    Empty(Arc<Notify>),
    /// The holder said no.
    Refused(String),
}

#[derive(Default)]
struct Stock {
    sockets: VecDeque<OwnedFd>,
    target: usize,
    requested: usize,
    taken: Option<Instant>,
    arrived: Arc<Notify>,
    refusal: Option<String>,
}

#[derive(Default)]
struct PodStocks {
    generation: u32,
    stocks: [Stock; KINDS],
}

/// All stocks of one proxy.
#[derive(Default)]
pub(super) struct Stocks {
    pods: HashMap<String, PodStocks>,
    total: usize,
}

/// How many to ask the holder for.
pub(super) struct Refill(pub(super) usize);

const fn index(kind: SocketKind, family: Family) -> usize {
    match (kind, family) {
        (SocketKind::Upstream, Family::V4) => 0,
        (SocketKind::Upstream, Family::V6) => 1,
        (SocketKind::App, Family::V4) => 2,
        (SocketKind::App, Family::V6) => 3,
    }
}

impl Stocks {
    /// Takes one, and says whether more should be asked for: when half is gone, and before any when it is the first time.
    pub(super) fn take(
        &mut self,
        uid: &str,
        kind: SocketKind,
        family: Family,
        now: Instant,
    ) -> (Taken, Option<Refill>) {
        let crowded = self.total >= limits::STOCK_BUDGET;
        if !self.pods.contains_key(uid) {
            self.pods.insert(uid.to_owned(), PodStocks::default());
        }
        let Some(pod) = self.pods.get_mut(uid) else {
            return (Taken::Refused("out of stocks".to_owned()), None);
        };
        let stock = &mut pod.stocks[index(kind, family)];
        stock.taken = Some(now);
        if let Some(reason) = stock.refusal.take() {
            return (Taken::Refused(reason), None);
        }
        let socket = stock.sockets.pop_front();
        self.total -= usize::from(socket.is_some());
        if socket.is_none() && stock.requested == 0 {
            // Ran dry: the next batch is twice as large.
            stock.target = if crowded {
                limits::STOCK_MIN
            } else {
                (stock.target * 2).clamp(limits::STOCK_MIN, limits::STOCK_MAX)
            };
        }
        let refill = (stock.requested == 0 && stock.sockets.len() <= stock.target / 2)
            .then(|| stock.target.saturating_sub(stock.sockets.len()).max(1));
        stock.requested += refill.unwrap_or(0);
        let taken = match socket {
            Some(socket) => Taken::Socket(socket),
            None => Taken::Empty(Arc::clone(&stock.arrived)),
        };
        (taken, refill.map(Refill))
    }

    /// A batch came. One of another enrolment is dropped.
    pub(super) fn put(&mut self, uid: &str, generation: u32, kind: SocketKind, family: Family, sockets: Vec<OwnedFd>) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let stock = &mut pod.stocks[index(kind, family)];
        stock.requested = 0;
        if pod.generation == 0 {
            pod.generation = generation;
        }
        if pod.generation == generation {
            self.total += sockets.len();
            stock.sockets.extend(sockets);
        }
        stock.arrived.notify_waiters();
    }

    /// The holder gave none.
    pub(super) fn refuse(&mut self, uid: &str, kind: SocketKind, family: Family, reason: String) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        let stock = &mut pod.stocks[index(kind, family)];
        stock.requested = 0;
        stock.refusal = Some(reason);
        stock.arrived.notify_waiters();
    }

    /// A pod was enrolled anew.
    pub(super) fn enrolled(&mut self, uid: &str, generation: u32) {
        if self.pods.get(uid).is_some_and(|pod| pod.generation != 0 && pod.generation != generation) {
            self.forget(uid);
        }
        self.pods.entry(uid.to_owned()).or_default().generation = generation;
    }

    /// Closes a pod's stocks. Who waits asks again.
    pub(super) fn forget(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        for stock in pod.stocks {
            self.total -= stock.sockets.len();
            stock.arrived.notify_waiters();
        }
    }

    /// Sockets in stock.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Requests in flight died with the holder: who waits asks again.
    pub(super) fn lost(&mut self) {
        for stock in self.pods.values_mut().flat_map(|pod| &mut pod.stocks) {
            stock.requested = 0;
            stock.arrived.notify_waiters();
        }
    }

    /// Closes what nobody took from for long.
    pub(super) fn sweep(&mut self, now: Instant) {
        // Uids that were asked for but never enrolled.
        self.pods.retain(|_uid, pod| pod.generation != 0 || pod.stocks.iter().any(|stock| stock.taken.is_some()));
        for stock in self.pods.values_mut().flat_map(|pod| &mut pod.stocks) {
            let idle = stock.taken.is_some_and(|taken| now.duration_since(taken) >= limits::STOCK_IDLE);
            if idle && stock.requested == 0 {
                self.total -= stock.sockets.len();
                *stock = Stock { arrived: Arc::clone(&stock.arrived), ..Stock::default() };
            }
        }
    }
}

#[cfg(test)]
mod tests;
