//! Access log of inbound HTTP, per workload: Apache common or JSON with Linkerd's keys, one line per response.
//!
//! Must never block a request, and never let a peer's bytes forge a line or a field.

mod entry;
#[cfg(test)]
mod tests;
mod time;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

pub use self::entry::AccessEntry;
use crate::{limits, telemetry::Telemetry};

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// Hands lines to a thread that writes them. Cloning is cheap.
#[derive(Clone)]
pub struct AccessLogger {
    lines: SyncSender<Message>,
    telemetry: Arc<Telemetry>,
}

impl AccessLogger {
    /// Starts the writer thread; it ends after the last clone of this is gone.
    ///
    /// # Errors
    /// When no thread can be made: check the pids limit of the container.
    pub fn start(output: impl Write + Send + 'static, telemetry: Arc<Telemetry>) -> io::Result<AccessLogger> {
        let (lines, queue) = sync_channel(limits::ACCESS_LOG_LINES);
        let counted = Arc::clone(&telemetry);
        thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&queue, output, &counted))?;
        Ok(AccessLogger { lines, telemetry })
    }

    /// Queues one line, newline included. Dropped and counted when the writer is behind.
    pub(crate) fn line(&self, line: String) {
        if self.lines.try_send(Message::Line(line)).is_err() {
            self.telemetry.access_log_dropped();
        }
    }

    /// Waits until what was queued so far is written, at most for `wait`. True when it is. Blocks: for the way out only.
    pub fn flush(&self, wait: Duration) -> bool {
        let (done, written) = sync_channel(1);
        self.lines.try_send(Message::Flush(done)).is_ok()
            && !matches!(written.recv_timeout(wait), Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected))
    }
}

/// Bytes of one write: whatever is waiting, up to this.
const BATCH: usize = 64 * 1024;

fn write_all(queue: &Receiver<Message>, mut output: impl Write, telemetry: &Telemetry) {
    let mut batch = String::new();
    while let Ok(first) = queue.recv() {
        let (mut lines, mut flush) = (0, None);
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Line(line) => {
                    batch.push_str(&line);
                    lines += 1;
                }
                Message::Flush(done) => flush = Some(done),
            }
            if flush.is_none() && batch.len() < BATCH {
                next = queue.try_recv().ok();
            }
        }
        if output.write_all(batch.as_bytes()).and_then(|()| output.flush()).is_err() {
            (0..lines).for_each(|_| telemetry.access_log_dropped());
        }
        batch.clear();
        if let Some(done) = flush {
            // Whoever waited may have stopped waiting.
            let _gone = done.try_send(());
        }
    }
}
