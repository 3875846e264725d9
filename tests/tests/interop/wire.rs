//! One TCP connection, read and written by hand. Must never wait for longer than [`PATIENCE`].

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    time::Duration,
};

/// Longest wait for bytes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN.
    Closed,
    /// RST.
    Reset,
}

/// A connection with what was read ahead.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) tcp: TcpStream,
    ahead: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> Wire {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire { tcp, ahead: Vec::new() }
    }

    /// The next connection of a listener.
    pub(crate) fn accept(listener: &TcpListener) -> Wire {
        // A blocking accept has no deadline of its own.
        listener.set_nonblocking(true).unwrap();
        let (tcp, _peer) =
            weir_tests::wait::until("a connection to the application", PATIENCE, || listener.accept().ok());
        tcp.set_nonblocking(false).unwrap();
        Wire::new(tcp)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tcp.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends to somebody who may be gone.
    pub(crate) fn try_send(&mut self, bytes: &str) -> std::io::Result<()> {
        self.tcp.write_all(bytes.as_bytes())
    }

    /// Closes the write half.
    pub(crate) fn finish(&self) {
        self.tcp.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads up to and with `mark`.
    pub(crate) fn until(&mut self, mark: &str) -> String {
        loop {
            let found = self.ahead.windows(mark.len()).position(|window| window == mark.as_bytes());
            if let Some(at) = found {
                let rest = self.ahead.split_off(at + mark.len());
                return String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap();
            }
            let more = self.fill();
            let ahead = String::from_utf8_lossy(&self.ahead);
            assert!(more, "the connection ended before {mark:?}: {ahead:?}");
        }
    }

    /// Whether a byte comes before the connection ends.
    pub(crate) fn has_head(&self) -> bool {
        matches!(self.tcp.peek(&mut [0]), Ok(count) if count > 0)
    }

    /// Reads a message's head, in small letters but for values.
    pub(crate) fn head(&mut self) -> Head {
        Head(self.until("\r\n\r\n"))
    }

    /// Reads this many bytes.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.fill(), "the connection ended after {} of {count} bytes", self.ahead.len());
        }
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// All bytes to the end, which may be a reset.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        self.end();
        std::mem::take(&mut self.ahead)
    }

    /// Reads to the end.
    pub(crate) fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8(std::mem::take(&mut self.ahead)).unwrap()
    }

    /// Reads to the end, which may be a reset.
    pub(crate) fn end(&mut self) -> End {
        let mut buffer = [0; 65_536];
        loop {
            match self.tcp.read(&mut buffer) {
                Ok(0) => return End::Closed,
                Ok(count) => self.ahead.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return End::Reset,
                Err(error) => panic!("neither closed nor reset: {error}, after {:?}", self.seen()),
            }
        }
    }

    /// What [`Wire::end`] read.
    pub(crate) fn seen(&self) -> String {
        String::from_utf8_lossy(&self.ahead).into_owned()
    }

    /// Whether something came, now or before, that was not taken.
    pub(crate) fn has_more(&mut self) -> bool {
        self.tcp.set_nonblocking(true).unwrap();
        let got = self.tcp.peek(&mut [0]);
        self.tcp.set_nonblocking(false).unwrap();
        !self.ahead.is_empty() || matches!(got, Ok(count) if count > 0)
    }

    /// Nothing comes within `time`, and the connection stays open.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.tcp.set_read_timeout(Some(time)).unwrap();
        let got = self.tcp.peek(&mut [0]);
        self.tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        self.ahead.is_empty() && matches!(got, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Closing sends RST.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO)).unwrap();
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        let count = self
            .tcp
            .read(&mut buffer)
            .unwrap_or_else(|error| panic!("{error}, after {:?}", String::from_utf8_lossy(&self.ahead)));
        self.ahead.extend_from_slice(&buffer[..count]);
        count > 0
    }
}

/// The head of an HTTP/1 message.
#[derive(Debug)]
pub(crate) struct Head(pub(crate) String);

impl Head {
    /// Request or status line.
    pub(crate) fn first(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    /// Status of a response.
    pub(crate) fn status(&self) -> u16 {
        self.first()
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no status: {self:?}"))
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The only value of a field.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} more than once: {self:?}");
        all.first().copied()
    }
}
