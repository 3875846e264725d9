//! The holder's socket: lets the proxy and the node's root in, and nobody else. Must never wait for a proxy that does not read.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::net::{SocketAddrUnix, SocketFlags};
use tokio::{io::unix::AsyncFd, sync::mpsc, task::JoinHandle};

use super::{Event, state};
use crate::{
    handover::{
        HandoverError, Reply, Request,
        channel::{Channel, seqpacket, watched},
    },
    limits,
};

/// A message to a proxy and what goes beside it.
pub(super) type Outgoing = (Reply, Vec<Arc<OwnedFd>>);

/// One connected proxy, or a CNI plugin that announces a pod.
pub(super) struct Client {
    /// It runs as the node's root: a plugin.
    pub(super) is_root: bool,
    sender: mpsc::Sender<Outgoing>,
    reader: JoinHandle<()>,
    /// It has returned what it had, and was told what is held.
    pub(super) ready: bool,
    /// It accepts no connection any more.
    pub(super) leaving: bool,
    /// Uids whose listeners it was sent.
    pub(super) announced: HashSet<String>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Client {
    /// Queues a message. False: it reads too slowly and must go.
    pub(super) fn send(&self, reply: Reply, fds: Vec<Arc<OwnedFd>>) -> bool {
        self.sender.try_send((reply, fds)).is_ok()
    }
}

/// The socket file.
pub(super) struct Server {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    proxy_uid: u32,
}

impl Server {
    /// Listens at `path`, for the user `proxy_uid` and root.
    pub(super) fn bind(path: &Path, proxy_uid: u32) -> io::Result<Server> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        // What a predecessor left: it is gone, or we would not have the lock of the state directory.
        state::remove(path)?;
        let socket = seqpacket()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        match std::os::unix::fs::chown(path, Some(proxy_uid), None) {
            // No CAP_CHOWN: then the file lets everybody knock, and the check of who it is does the rest.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
            }
            owned => owned?,
        }
        rustix::net::listen(&socket, limits::HOLDER_BACKLOG)?;
        Ok(Server { socket: watched(socket)?, path: path.to_owned(), proxy_uid })
    }

    /// Lets proxies in until the holder ends.
    pub(super) async fn run(self, events: mpsc::Sender<Event>) {
        for id in 0_u64.. {
            let channel = match self.accept().await {
                Ok(channel) => channel,
                Err(error) => {
                    tracing::warn!(socket = %self.path.display(), %error, "accepting a proxy failed");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let is_root = match channel.peer_uid() {
                Ok(uid) if uid == self.proxy_uid || uid == 0 => uid != self.proxy_uid,
                other => {
                    tracing::warn!(?other, "refused a connection that is not the proxy's user's");
                    continue;
                }
            };
            let (sender, outgoing) = mpsc::channel(limits::HANDOVER_QUEUE);
            let reader = tokio::spawn(serve(id, channel, outgoing, events.clone()));
            let client = Client { is_root, sender, reader, ready: false, leaving: false, announced: HashSet::new() };
            if events.send(Event::Connected { id, client }).await.is_err() {
                return;
            }
        }
    }

    async fn accept(&self) -> io::Result<Channel> {
        loop {
            let mut guard = self.socket.readable().await?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            if let Ok(accepted) = guard.try_io(|socket| Ok(rustix::net::accept_with(socket.get_ref(), flags)?)) {
                return Channel::new(accepted?);
            }
        }
    }
}

async fn serve(id: u64, channel: Channel, mut outgoing: mpsc::Receiver<Outgoing>, events: mpsc::Sender<Event>) {
    let read = async {
        loop {
            let (request, fds) = channel.receive::<Request>().await?;
            if events.send(Event::Request { id, request, fds }).await.is_err() {
                return Err(HandoverError::Closed);
            }
        }
    };
    let write = async {
        while let Some((reply, fds)) = outgoing.recv().await {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            channel.send(&reply, &fds).await?;
        }
        // Cut off by the holder.
        Err::<(), HandoverError>(HandoverError::Closed)
    };
    let ended: Result<(), HandoverError> = tokio::select! {
        ended = read => ended,
        ended = write => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(client = id, %error, "a client left");
    }
    // Nobody to tell when the holder ends too.
    let _ending = events.send(Event::Gone { id }).await;
}
