//! An HTTP/2 server that begins each answer at once, ends none, and lets no more of a request in than the protocol does by itself (RFC 9113,
//! 6.9.2). Must never open a window before it is asked to.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use weir_tests::mesh::Pod;

use crate::{
    stage::PATIENCE,
    turns::{Accepting, listen},
};

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// How the client's half of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// In order.
    Whole,
    Reset,
}

/// The server; it ends with this.
pub(crate) struct Stingy {
    halves: mpsc::Receiver<Half>,
    is_open: Arc<AtomicBool>,
    _accepting: Accepting,
}

impl Stingy {
    pub(crate) fn start(pod: &Pod, port: u16) -> Stingy {
        let listener = listen(pod, port);
        let (told, halves) = mpsc::sync_channel(1_000);
        let is_open = Arc::<AtomicBool>::default();
        let opened = Arc::clone(&is_open);
        let accepting = Accepting::start(vec![listener], move |tcp, stop| {
            let connection = Connection { tcp, told: told.clone(), is_open: Arc::clone(&opened), stop };
            // However it ends, the test hears of its streams.
            let _ended = connection.serve();
        });
        Stingy { halves, is_open, _accepting: accepting }
    }

    /// Lets everything in from now on.
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// How the next stream ended.
    pub(crate) fn next(&self, what: &str) -> Half {
        self.halves.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// How one more has, where one has.
    pub(crate) fn ended(&self) -> Option<Half> {
        self.halves.try_recv().ok()
    }
}

struct Connection {
    tcp: TcpStream,
    told: mpsc::SyncSender<Half>,
    is_open: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Connection {
    fn serve(mut self) -> std::io::Result<()> {
        self.tcp.set_nonblocking(false)?;
        self.tcp.set_read_timeout(Some(Duration::from_millis(20)))?;
        self.write(SETTINGS, 0, 0, &[])?;
        let (mut bytes, mut streams, mut was_open) = (Vec::new(), BTreeSet::new(), false);
        let mut buffer = [0; 64 * 1024];
        let mut begin = PREFACE;
        while !self.stop.load(Ordering::Relaxed) {
            if self.is_open.load(Ordering::Relaxed) && !was_open {
                was_open = true;
                for stream in streams.iter().chain(&[0]) {
                    self.write(WINDOW_UPDATE, 0, *stream, &(8_u32 << 20).to_be_bytes())?;
                }
            }
            match self.tcp.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            while let Some((kind, flags, stream, size)) = frame(bytes.get(begin..).unwrap_or_default()) {
                bytes.drain(..begin + 9 + size);
                begin = 0;
                match kind {
                    HEADERS => {
                        streams.insert(stream);
                        // `:status: 200` of HPACK's static table.
                        self.write(HEADERS, END_HEADERS, stream, &[0x88])?;
                    }
                    SETTINGS if flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[])?,
                    _other => {}
                }
                let half = match kind {
                    RST_STREAM => Some(Half::Reset),
                    HEADERS | DATA if flags & END_STREAM != 0 => Some(Half::Whole),
                    _other => None,
                };
                // What ended in order may be reset afterwards, when nobody waits for its answer.
                if let Some(half) = half
                    && streams.remove(&stream)
                {
                    let _gone = self.told.send(half);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let size = u8::try_from(payload.len()).expect("a small frame");
        let mut frame = vec![0, 0, size, kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.tcp.write_all(&frame)
    }
}

/// Type, flags, stream and size of the frame that begins there, when it is there whole.
fn frame(bytes: &[u8]) -> Option<(u8, u8, u32, usize)> {
    let head = bytes.get(..9)?;
    let size = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    (bytes.len() >= 9 + size).then_some((head[3], head[4], stream, size))
}
