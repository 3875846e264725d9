//! A TLS connection after its handshake, as a byte stream.
//!
//! Must never hold a buffer while it is idle, and never end a read in order that the peer did not (RFC 8446 6.1).

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use rustls::ExtractedSecrets;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    TlsError,
    record::{self, FRAGMENT, OVERHEAD, Opener, Sealer, content},
    secrets::Secrets,
};
use crate::limits;

/// Records that one write seals: with their overhead they fill one `limits::COPY_BYTES` of plaintext.
const RECORDS: usize = limits::COPY_BYTES / FRAGMENT;
/// Sealed bytes that wait for the next write instead of being written by themselves.
const TOGETHER: usize = 4 * 1024;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const KEY_UPDATE: u8 = 24;
const NEW_SESSION_TICKET: u8 = 4;

thread_local! {
    /// What is read and sealed goes through buffers of the thread: connections hold only what is left over.
    static INCOMING: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; limits::COPY_BYTES + RECORDS * OVERHEAD + record::LONGEST].into_boxed_slice());
    static OUTGOING: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; RECORDS * (FRAGMENT + OVERHEAD) + TOGETHER].into_boxed_slice());
    static GATHER: RefCell<Box<[u8]>> = RefCell::new(vec![0; FRAGMENT].into_boxed_slice());
}

/// A connection as the handshake leaves it.
pub(super) struct Begin {
    pub(super) tcp: TcpStream,
    /// Read, not opened.
    pub(super) cipher: Vec<u8>,
    /// Opened, not delivered.
    pub(super) plain: Vec<u8>,
    /// Sealed, not written.
    pub(super) out: Vec<u8>,
    /// The peer has said that nothing more comes.
    pub(super) closed: bool,
}

/// How reading ends.
#[derive(Clone, Copy)]
enum End {
    Open,
    Closed,
    Failed(TlsError),
}

/// A TLS 1.3 connection that carries application data.
pub struct TlsStream {
    tcp: TcpStream,
    opener: Opener,
    sealer: Sealer,
    secrets: Secrets,
    cipher: Bytes,
    plain: Bytes,
    out: Bytes,
    /// A handshake message of which the end is still to come.
    message: Vec<u8>,
    end: End,
    /// The peer wants our next key. At most one answer is owed at a time (RFC 8446 4.6.3).
    owes_key_update: bool,
    shut: bool,
}

impl TlsStream {
    pub(super) fn new(begin: Begin, keys: ExtractedSecrets, secrets: Secrets) -> Result<TlsStream, TlsError> {
        Ok(TlsStream {
            tcp: begin.tcp,
            opener: Opener::new(keys.rx.0, &keys.rx.1)?,
            sealer: Sealer::new(keys.tx.0, &keys.tx.1)?,
            secrets,
            // As short as they are: what a handshake read and wrote through is bigger.
            cipher: Bytes::copy_from_slice(&begin.cipher),
            plain: Bytes::copy_from_slice(&begin.plain),
            out: Bytes::copy_from_slice(&begin.out),
            message: Vec::new(),
            end: if begin.closed { End::Closed } else { End::Open },
            owes_key_update: false,
            shut: false,
        })
    }

    /// The socket.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Bytes that it holds.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.cipher.len() + self.plain.len() + self.out.len() + self.message.len()
    }

    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.plain.len().min(buf.remaining());
        buf.put_slice(&self.plain[..count]);
        self.plain.advance(count);
        if self.plain.is_empty() {
            self.plain = Bytes::new();
        }
    }

    /// Opens whole records of `input` into `buf` until it is full. Returns how many bytes of `input` are done with.
    fn open(&mut self, input: &[u8], buf: &mut ReadBuf<'_>) -> usize {
        let (mut done, before) = (0, buf.filled().len());
        while buf.remaining() > 0 && matches!(self.end, End::Open) {
            let record = match record::length(&input[done..]) {
                Ok(Some(length)) if input.len() - done >= length => &input[done..done + length],
                Ok(_not_whole) => break,
                Err(error) => {
                    self.end = End::Failed(error);
                    break;
                }
            };
            let room = record::room(record.len());
            let opened = if room <= buf.remaining() {
                self.open_into(record, room, buf)
            } else if buf.filled().len() == before {
                self.open_apart(record, room, buf)
            } else {
                break;
            };
            done += record.len();
            if let Err(error) = opened {
                self.end = End::Failed(error);
            }
        }
        done
    }

    fn open_into(&mut self, record: &[u8], room: usize, buf: &mut ReadBuf<'_>) -> Result<(), TlsError> {
        let out = buf.initialize_unfilled_to(room);
        let (kind, length) = self.opener.open(record, out)?;
        if kind == content::DATA {
            buf.advance(length);
            return Ok(());
        }
        let control = out[..length].to_vec();
        self.control(kind, &control)
    }

    /// For a record that does not fit: what does is delivered, the rest kept.
    fn open_apart(&mut self, record: &[u8], room: usize, buf: &mut ReadBuf<'_>) -> Result<(), TlsError> {
        let mut out = vec![0; room];
        let (kind, length) = self.opener.open(record, &mut out)?;
        out.truncate(length);
        if kind == content::DATA {
            self.plain = out.into();
            self.deliver(buf);
            return Ok(());
        }
        self.control(kind, &out)
    }

    /// What is not application data.
    fn control(&mut self, kind: u8, bytes: &[u8]) -> Result<(), TlsError> {
        match (kind, bytes) {
            (content::ALERT, [_level, 0]) => {
                self.end = End::Closed;
                Ok(())
            }
            (content::ALERT, [_level, alert]) => Err(TlsError::Alert(*alert)),
            (content::HANDSHAKE, bytes) if !bytes.is_empty() => {
                self.message.extend_from_slice(bytes);
                self.messages()
            }
            (kind, _) => Err(TlsError::Record(kind)),
        }
    }

    /// Handshake messages may share a record, or span several.
    fn messages(&mut self) -> Result<(), TlsError> {
        while let Some(&[kind, a, b, c]) = self.message.first_chunk() {
            let length = 4 + usize::try_from(u32::from_be_bytes([0, a, b, c])).map_err(|_wide| TlsError::TooLong)?;
            if length > limits::TLS_MESSAGE_BYTES {
                return Err(TlsError::TooLong);
            }
            let Some(message) = self.message.get(..length) else { return Ok(()) };
            match (kind, message) {
                // Resumption is off: a ticket is of no use.
                (NEW_SESSION_TICKET, _) if matches!(self.secrets, Secrets::Client(_)) => {}
                // The key changes with the next record: nothing else may be in this one (RFC 8446 5.1).
                (KEY_UPDATE, [_, 0, 0, 1, request @ (0 | 1)]) if self.message.len() == length => {
                    self.owes_key_update |= *request == 1;
                    let (sequence, secrets) = self.secrets.next_received()?;
                    self.opener = Opener::new(sequence, &secrets)?;
                }
                (kind, _) => return Err(TlsError::Unexpected(kind)),
            }
            self.message.drain(..length);
        }
        if self.message.is_empty() {
            self.message = Vec::new();
        }
        Ok(())
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        INCOMING.with_borrow_mut(|scratch| {
            let kept = self.cipher.len();
            // As much as the caller takes, a whole record at least: what is over must be kept.
            let wanted = buf.remaining().clamp(FRAGMENT, limits::COPY_BYTES) + RECORDS * OVERHEAD;
            let end = scratch.len().min(kept + wanted);
            let mut space = ReadBuf::new(&mut scratch[kept..end]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut space))?;
            let read = space.filled().len();
            if read == 0 {
                // Without a close_notify this may be an attacker's doing.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            scratch[..kept].copy_from_slice(&self.cipher);
            let input = &scratch[..kept + read];
            self.cipher = Bytes::new();
            let done = self.open(input, buf);
            if done < input.len() {
                self.cipher = Bytes::copy_from_slice(&input[done..]);
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Tells the peer why, if it is to be told; the connection is over either way.
    fn fail(&mut self, cx: &mut Context<'_>, error: TlsError) -> io::Error {
        if let Some(alert) = error.alert().filter(|_| !self.shut) {
            self.shut = true;
            if self.append(content::ALERT, &[2, alert]).is_ok() {
                let _gone = self.poll_send(cx);
            }
        }
        error.into()
    }

    /// Seals a short record behind what is still to be written.
    fn append(&mut self, kind: u8, plain: &[u8]) -> Result<(), TlsError> {
        let mut out = Vec::with_capacity(self.out.len() + plain.len() + OVERHEAD);
        out.extend_from_slice(&self.out);
        let begin = out.len();
        out.resize(begin + plain.len() + OVERHEAD, 0);
        self.sealer.seal(kind, plain, &mut out[begin..])?;
        self.out = out.into();
        Ok(())
    }

    /// Tells the peer that the key changes, and changes it (RFC 8446 4.6.3).
    pub(super) fn update_key(&mut self) -> Result<(), TlsError> {
        self.owes_key_update = false;
        self.append(content::HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0])?;
        let (sequence, secrets) = self.secrets.next_sent()?;
        self.sealer = Sealer::new(sequence, &secrets)?;
        Ok(())
    }

    /// Writes what is sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.out))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(sent);
        }
        self.out = Bytes::new();
        Poll::Ready(Ok(()))
    }

    /// Seals as much of `input` as one write takes, and writes what the socket takes. Returns how much is sealed.
    fn poll_seal(&mut self, cx: &mut Context<'_>, mut input: Slices<'_, '_>) -> Poll<io::Result<usize>> {
        // A little, as the handshake's last flight, leaves with what comes now; more goes first.
        if self.out.len() > TOGETHER {
            ready!(self.poll_send(cx))?;
        }
        if self.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.owes_key_update || self.sealer.is_worn() {
            self.update_key()?;
        }
        OUTGOING.with_borrow_mut(|scratch| {
            let (mut taken, mut end) = (0, self.out.len());
            scratch[..end].copy_from_slice(&self.out);
            while scratch.len() - end >= FRAGMENT + OVERHEAD {
                let Some(sealed) = input.next(|plain| {
                    taken += plain.len();
                    self.sealer.seal(content::DATA, plain, &mut scratch[end..])
                }) else {
                    break;
                };
                end += sealed?;
            }
            let mut written = 0;
            while written < end {
                match Pin::new(&mut self.tcp).poll_write(cx, &scratch[written..end])? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(count) => written += count,
                    Poll::Pending => break,
                }
            }
            self.out = Bytes::copy_from_slice(&scratch[written..end]);
            Poll::Ready(Ok(taken))
        })
    }
}

/// What is left of the slices of one write.
struct Slices<'a, 'b> {
    slices: &'a [io::IoSlice<'b>],
    /// Bytes of the first that are done with.
    at: usize,
}

impl Slices<'_, '_> {
    /// Up to [`FRAGMENT`] bytes: of one slice where that is all there is or fills a record, else gathered from several.
    fn next<R>(&mut self, seal: impl FnOnce(&[u8]) -> R) -> Option<R> {
        self.skip();
        let first = &self.slices.first()?[self.at..];
        if first.len() >= FRAGMENT || self.slices.len() == 1 {
            let plain = &first[..first.len().min(FRAGMENT)];
            self.at += plain.len();
            return Some(seal(plain));
        }
        GATHER.with_borrow_mut(|gather| {
            let mut end = 0;
            while end < FRAGMENT && !self.slices.is_empty() {
                let slice = &self.slices[0][self.at..];
                let count = slice.len().min(FRAGMENT - end);
                gather[end..end + count].copy_from_slice(&slice[..count]);
                end += count;
                self.at += count;
                self.skip();
            }
            Some(seal(&gather[..end]))
        })
    }

    fn skip(&mut self) {
        while self.slices.first().is_some_and(|slice| slice.len() == self.at) {
            self.slices = &self.slices[1..];
            self.at = 0;
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if !this.plain.is_empty() {
                this.deliver(buf);
            } else if !this.cipher.is_empty() {
                let kept = std::mem::take(&mut this.cipher);
                let done = this.open(&kept, buf);
                this.cipher = if done < kept.len() { kept.slice(done..) } else { Bytes::new() };
            }
            if this.owes_key_update && this.out.is_empty() && !this.shut {
                this.update_key()?;
                // What does not fit now leaves with the next write.
                let _later = this.poll_send(cx)?;
            }
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            match this.end {
                End::Closed => return Poll::Ready(Ok(())),
                End::Failed(error) => return Poll::Ready(Err(this.fail(cx, error))),
                End::Open => ready!(this.poll_fill(cx, buf))?,
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, Slices { slices: &[io::IoSlice::new(buf)], at: 0 })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_seal(cx, Slices { slices: bufs, at: 0 })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.shut {
            this.append(content::ALERT, &CLOSE_NOTIFY)?;
            this.shut = true;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}
