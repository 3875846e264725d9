//! Hears of changes to rules, routes and addresses in a pod's namespace. Must never act on them: it says that something changed.

use std::{io, os::fd::AsRawFd as _};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::{sync::mpsc, task::JoinHandle};

use super::Event;
use crate::{handover::channel::watched, limits};

// RTNLGRP_* of the kernel's interface.
const GROUPS: [u32; 6] = [5, 7, 8, 9, 11, 19];

/// Ends with this.
pub(super) struct Monitor(JoinHandle<()>);

impl Drop for Monitor {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Opens the ear. Must be called on a thread inside the namespace.
pub(super) fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        // 8: IPv4 rules; 19: IPv6 rules; 7 and 11: routes; 5 and 9: addresses. A kernel without IPv6 lacks some.
        if let Err(error) = socket.add_membership(group) {
            tracing::debug!(group, %error, "netlink group not heard");
        }
    }
    Ok(socket)
}

/// Tells the holder whenever something changed in the namespace of pod `uid`.
pub(super) fn start(socket: Socket, uid: String, events: mpsc::Sender<Event>) -> io::Result<Monitor> {
    tracing::debug!(fd = socket.as_raw_fd(), uid, "listening for changes");
    let socket = watched(socket)?;
    Ok(Monitor(tokio::spawn(async move {
        let mut buffer = Vec::with_capacity(limits::NETLINK_BYTES);
        while let Ok(mut ready) = socket.readable().await {
            buffer.clear();
            let read = ready.try_io(|socket| socket.get_ref().recv(&mut buffer, 0));
            // An overrun (ENOBUFS) is a change too.
            if read.is_ok() && events.send(Event::Changed { uid: uid.clone() }).await.is_err() {
                return;
            }
        }
    })))
}
