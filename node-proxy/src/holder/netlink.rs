//! Requests to the kernel over netlink, answered before they return. Must never be used outside the namespace it was opened in.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::limits;

const HEADER_BYTES: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// A netlink socket of the calling thread's namespace.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    pub(super) fn route() -> io::Result<Netlink> {
        Netlink::open(NETLINK_ROUTE)
    }

    pub(super) fn open(protocol: isize) -> io::Result<Netlink> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Asks for all objects of a kind.
    pub(super) fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let bytes = self.serialize(message, NLM_F_REQUEST | NLM_F_DUMP);
        let mut found = Vec::new();
        self.exchange(&bytes, |message| {
            // What this library cannot read is nothing that we made.
            if let Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(inner), .. }) =
                NetlinkMessage::deserialize(message)
            {
                found.push(inner);
            }
        })?;
        Ok(found)
    }

    /// Makes an object. One that is there already is an error (`AlreadyExists`).
    pub(super) fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        let bytes = self.serialize(message, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        self.exchange(&bytes, |_message| {})
    }

    /// Removes an object.
    pub(super) fn remove(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        let bytes = self.serialize(message, NLM_F_REQUEST | NLM_F_ACK);
        self.exchange(&bytes, |_message| {})
    }

    /// Asks for all objects of a kind in a family of messages that the library has no types for.
    pub(super) fn dump_raw(&mut self, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER_BYTES + body.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&0_u32.to_ne_bytes());
        bytes.extend_from_slice(body);
        self.exchange(&bytes, |message| each(message.get(HEADER_BYTES..).unwrap_or_default()))
    }

    fn serialize(&mut self, message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Sends, then reads messages until the acknowledgement or the end of the dump.
    fn exchange(&self, request: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.socket.send(request, 0)?;
        let mut buffer = Vec::with_capacity(limits::NETLINK_BYTES);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            for message in messages(&buffer) {
                let kind = u16::from_ne_bytes([message[4], message[5]]);
                match kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = message.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|code| code.try_into().ok());
                        let code = code.map_or(libc_eproto(), i32::from_ne_bytes);
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _other => each(message),
                }
            }
        }
    }
}

fn libc_eproto() -> i32 {
    -rustix::io::Errno::PROTO.raw_os_error()
}

/// The messages of one datagram; each at least a header long.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        let length = usize::try_from(u32::from_ne_bytes(length)).ok()?;
        if length < HEADER_BYTES || length > bytes.len() {
            return None;
        }
        let (message, _rest) = bytes.split_at(length);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes of a message: type and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_messages_and_stops_at_garbage() {
        let mut bytes = Vec::new();
        for length in [16_u32, 18] {
            let start = bytes.len();
            bytes.extend_from_slice(&length.to_ne_bytes());
            bytes.resize(start + length as usize, 7);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        assert_eq!(messages(&bytes).map(<[u8]>::len).collect::<Vec<_>>(), [16, 18]);
        bytes.extend_from_slice(&[3, 0, 0, 0, 0]);
        assert_eq!(messages(&bytes).count(), 2);
        assert_eq!(messages(&[]).count(), 0);
    }

    #[test]
    fn splits_attributes() {
        let bytes = [5, 0, 15, 0, 9, 0, 0, 0, 8, 0, 16, 0, 1, 2, 3, 4];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(15, &[9_u8][..]), (16, &[1, 2, 3, 4][..])]);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0, "a length of zero must not loop");
    }
}
