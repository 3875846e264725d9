//! Takes captured connections from the listeners in pods' namespaces.
//!
//! Must never stop accepting for one workload because another one floods.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use weir_core::snapshot::Workload;

use crate::{fair::Fair, inbound, limits, outbound, proxy::Worker, telemetry::Direction};

/// How an accept loop is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not yet.
    No,
    /// The pod left the mesh: what is in the queue is still served.
    Released,
    /// The proxy leaves: what is in the queue is the next worker's.
    Draining,
}

/// One listener of one captured pod.
pub struct Captured {
    /// Pod uid.
    pub uid: Arc<str>,
    /// The pod as it was when its listeners came. Counts for what arrives between control's word that it leaves the mesh and the
    /// moment in which the kernel brings nothing more.
    pub workload: Arc<Workload>,
    /// Which of the two.
    pub direction: Direction,
    /// Open connections of this workload, over all workers and both directions.
    pub connections: Arc<AtomicUsize>,
    /// When to end.
    pub stop: watch::Receiver<Stop>,
}

/// Counts one connection of a workload.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Option<Place> {
        let place = Place(Arc::clone(connections));
        (connections.fetch_add(1, Ordering::Relaxed) < limits::WORKLOAD_CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until told to stop.
pub async fn run(worker: Arc<Worker>, mut captured: Captured, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _changed = captured.stop.changed() => break,
        };
        match accepted {
            Ok((tcp, peer)) => begin(&worker, &captured, tcp, peer),
            Err(error) => {
                tracing::warn!(%error, uid = %captured.uid, "accept failed; connections wait in the kernel's queue");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
    if *captured.stop.borrow() == Stop::Released {
        while let Some(Ok((tcp, peer))) = listener.accept().now_or_never() {
            begin(&worker, &captured, tcp, peer);
        }
    }
}

fn begin(worker: &Arc<Worker>, captured: &Captured, tcp: TcpStream, peer: SocketAddr) {
    let Ok(target) = tcp.local_addr() else { return };
    let (peer, target) = (unmapped(peer), unmapped(target));
    let Some(place) = Place::take(&captured.connections) else {
        worker.shared.telemetry.tcp_error(captured.direction, &weir_core::proxy_error::ProxyError::LoadShed);
        let _gone = socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO));
        return;
    };
    let workload = worker.workload(&captured.uid).unwrap_or_else(|| Arc::clone(&captured.workload));
    let worker = Arc::clone(worker);
    match captured.direction {
        Direction::Outbound => {
            let client = outbound::Client { worker, workload, peer, target };
            tokio::spawn(Fair::new(async move {
                outbound::serve(client, tcp).await;
                drop(place);
            }));
        }
        Direction::Inbound => {
            tokio::spawn(Fair::new(async move {
                inbound::serve(worker, workload, tcp, peer, target).await;
                drop(place);
            }));
        }
    }
}

/// IPv4 that came over a dual-stack listener, as IPv4: nothing behind this line sees a mapped address.
fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_two<A, B, F: Future>(_begin: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    fn of_five<A, B, C, D, E, F: Future>(_begin: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    /// Each connection holds one of these for its whole life; what a state needs more is boxed and goes with the state.
    #[test]
    fn what_every_connection_holds_is_small() {
        assert!(
            of_two(outbound::serve) <= limits::CONNECTION_FUTURE_BYTES,
            "outbound: {} bytes",
            of_two(outbound::serve)
        );
        assert!(
            of_five(inbound::serve) <= limits::CONNECTION_FUTURE_BYTES,
            "inbound: {} bytes",
            of_five(inbound::serve)
        );
    }

    #[test]
    fn mapped_addresses_become_ipv4_and_others_stay() {
        for (given, wanted) in
            [("[::ffff:10.1.2.3]:80", "10.1.2.3:80"), ("[fd00::1]:80", "[fd00::1]:80"), ("10.1.2.3:80", "10.1.2.3:80")]
        {
            assert_eq!(unmapped(given.parse().unwrap()), wanted.parse().unwrap());
        }
    }
}
