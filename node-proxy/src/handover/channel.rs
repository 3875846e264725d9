//! One end of the handover socket: whole messages, descriptors beside them. Must never wait inside a system call.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::unix::AsyncFd;

use super::HandoverError;
use crate::limits;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(limits::HANDOVER_FDS));

/// One end.
pub struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// Connects to the holder's socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let socket = seqpacket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Channel::new(socket)
    }

    /// From a connected socket.
    ///
    /// # Errors
    /// Outside a tokio runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Channel> {
        Ok(Channel(watched(socket)?))
    }

    /// Sends one message; waits until there is room.
    ///
    /// # Errors
    /// [`HandoverError::Io`], also when the other side is gone.
    pub async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        let bytes = serde_json::to_vec(message)?;
        loop {
            let mut guard = self.0.writable().await?;
            if let Ok(sent) = guard.try_io(|socket| send(socket.as_fd(), &bytes, fds)) {
                return Ok(sent?);
            }
        }
    }

    /// Receives one message and what is beside it.
    ///
    /// # Errors
    /// [`HandoverError::Closed`] at the end; a message that is not ours.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), HandoverError> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(received) = guard.try_io(|socket| receive(socket.as_fd())) {
                let (bytes, fds) = received?;
                if bytes.is_empty() {
                    return Err(HandoverError::Closed);
                }
                return Ok((serde_json::from_slice(&bytes)?, fds));
            }
        }
    }

    /// User id of the process at the other end.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(rustix::net::sockopt::socket_peercred(self.0.get_ref())?.uid.as_raw())
    }
}

/// A descriptor whose readiness the runtime tells. Its owner must not close it while it is in here.
pub(crate) fn watched<T: AsRawFd>(fd: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "the replacement is unsafe; all that come here own their descriptor and never swap it"
    )]
    AsyncFd::new(fd)
}

/// A socket of the right type, not yet connected or bound.
///
/// # Errors
/// What the kernel says.
pub fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("more descriptors than one message may carry"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; limits::HANDOVER_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message or descriptors cut short"));
    }
    bytes.truncate(received.bytes);
    bytes.shrink_to_fit();
    Ok((bytes, fds))
}
