//! SIGINT, SIGTERM and SIGHUP as something to wait for. Must never end the process itself: what was started must be taken down first.

use std::{
    cell::Cell,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

/// Tells whether the user or the system wants the end.
#[derive(Debug)]
pub struct Stop {
    signals: Receiver<&'static str>,
    seen: Cell<Option<&'static str>>,
}

impl Stop {
    /// From now on these signals no longer end the process.
    ///
    /// # Errors
    /// The signals cannot be caught.
    pub fn install() -> io::Result<Stop> {
        // One is enough: a second signal says nothing new.
        let (sender, signals) = sync_channel(1);
        let (ready, installed) = sync_channel(1);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let outcome = runtime.and_then(|runtime| runtime.block_on(listen(&sender, &ready)));
            // Nobody waits when this came after the installation.
            let _told = ready.try_send(outcome);
        })?;
        installed.recv().unwrap_or_else(|gone| Err(io::Error::other(gone)))?;
        Ok(Stop { signals, seen: Cell::new(None) })
    }

    /// Waits so long, or until a signal; true when there was one, now or earlier.
    pub fn wait(&self, time: Duration) -> bool {
        if self.seen.get().is_none() {
            match self.signals.recv_timeout(time) {
                Ok(name) => self.seen.set(Some(name)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => thread::park_timeout(time),
            }
        }
        self.seen.get().is_some()
    }

    /// Name of the signal that came, if any.
    pub fn asked(&self) -> Option<&'static str> {
        self.wait(Duration::ZERO);
        self.seen.get()
    }

    /// Forgets a signal that was meant for somebody else, as Ctrl-C in a shell is.
    pub fn forget(&self) {
        self.wait(Duration::ZERO);
        self.seen.set(None);
    }
}

async fn listen(sender: &SyncSender<&'static str>, ready: &SyncSender<io::Result<()>>) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let _told = ready.try_send(Ok(()));
    loop {
        let name = tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        };
        // Full: the first one was not looked at yet.
        let _told = sender.try_send(name);
    }
}
