//! The test as proxy: the real client of the holder, and listeners that answer every connection with where it was caught.

use std::{
    collections::HashMap,
    net::TcpListener,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use tokio::{io::AsyncWriteExt as _, runtime::Handle, sync::oneshot};
use weir_node::handover::{Family, HandoverError, HolderClient, HolderEvent, PodSpec, SocketKind};

use super::stage::{Stage, WITHIN, words};

/// Events that a test may leave unread: a few for each pod.
const EVENTS: usize = 1_024;

/// What the holder told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Enrolled(String),
    Unenrolled(String),
    Refused(String, String),
    Vault(OwnedFdEq),
    Synced,
    Lost,
}

/// A descriptor, equal to any other: events are compared without it.
#[derive(Debug)]
pub(crate) struct OwnedFdEq(pub(crate) OwnedFd);

impl PartialEq for OwnedFdEq {
    fn eq(&self, _other: &OwnedFdEq) -> bool {
        true
    }
}

impl Eq for OwnedFdEq {}

/// Outbound and inbound listener of a pod.
pub(crate) type Pair = (TcpListener, TcpListener);

/// What becomes of listeners.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Connections are answered: `outbound` or `inbound`, local address, peer.
    Answer,
    /// They are kept for the test, in blocking mode.
    Keep,
}

/// The proxy. Dropped, it dies as by SIGKILL: all its descriptors are closed at once.
pub(crate) struct Proxy {
    pub(crate) client: Option<HolderClient>,
    pub(crate) kept: Arc<Mutex<HashMap<String, Pair>>>,
    handle: Handle,
    heard: mpsc::Receiver<Heard>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Connects, and waits until the holder has told everything.
    pub(crate) fn start(stage: &Stage, mode: Mode) -> Proxy {
        Proxy::start_and(stage, mode, |heard| matches!(heard, Heard::Synced).then_some(())).0
    }

    /// Connects, and waits until the holder has told `wanted`.
    pub(crate) fn start_and<T>(stage: &Stage, mode: Mode, wanted: impl FnMut(&Heard) -> Option<T>) -> (Proxy, T) {
        let proxy = Proxy::begin(stage.socket(), mode);
        let found = proxy.wait(wanted);
        (proxy, found)
    }

    fn begin(socket: PathBuf, mode: Mode) -> Proxy {
        let (stop, stopped) = oneshot::channel();
        let (tell, heard) = mpsc::sync_channel(EVENTS);
        let (started, ready) = mpsc::sync_channel(1);
        let kept = Arc::new(Mutex::new(HashMap::new()));
        let keep = Arc::clone(&kept);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            let handle = runtime.handle().clone();
            runtime.block_on(async move {
                let (client, events) = HolderClient::start(socket).await;
                started.send((handle, client)).expect("the test");
                tokio::select! {
                    () = serve(events, tell, mode, keep) => {}
                    _asked = stopped => {}
                }
            });
        });
        let (handle, client) = ready.recv_timeout(WITHIN).expect("client of the holder");
        Proxy { client: Some(client), kept, handle, heard, stop: Some(stop), thread: Some(thread) }
    }

    fn client(&self) -> &HolderClient {
        self.client.as_ref().expect("a living proxy")
    }

    /// Waits for an event.
    pub(crate) fn wait<T>(&self, mut wanted: impl FnMut(&Heard) -> Option<T>) -> T {
        loop {
            let heard = self.heard.recv_timeout(WITHIN).expect("an event of the holder's within the time");
            if let Some(found) = wanted(&heard) {
                return found;
            }
        }
    }

    /// Has a pod captured, and waits until it is.
    pub(crate) fn enrol(&self, spec: PodSpec) {
        let uid = spec.uid.clone();
        self.ask_for(spec);
        self.wait(|heard| match heard {
            Heard::Enrolled(told) if *told == uid => Some(()),
            Heard::Refused(told, reason) if *told == uid => panic!("{uid} was refused: {reason}"),
            _other => None,
        });
    }

    /// Asks for a pod to be captured.
    pub(crate) fn ask_for(&self, spec: PodSpec) {
        self.handle.block_on(self.client().enrol(spec));
    }

    /// Why a pod is not captured.
    pub(crate) fn refusal(&self, spec: PodSpec) -> String {
        let uid = spec.uid.clone();
        self.ask_for(spec);
        self.wait(|heard| match heard {
            Heard::Refused(told, reason) if *told == uid => Some(reason.clone()),
            Heard::Enrolled(told) if *told == uid => panic!("{uid} was captured"),
            _other => None,
        })
    }

    /// Has a pod released, and waits until its listeners are closed in the holder.
    pub(crate) fn unenrol(&self, uid: &str) {
        self.begin_unenrol(uid);
        self.wait(|heard| (*heard == Heard::Unenrolled(uid.to_owned())).then_some(()));
    }

    /// Asks for a pod to be released.
    pub(crate) fn begin_unenrol(&self, uid: &str) {
        self.handle.block_on(self.client().unenrol(uid));
    }

    /// A dial socket.
    pub(crate) fn socket(&self, uid: &str, kind: SocketKind, family: Family) -> Result<OwnedFd, HandoverError> {
        self.handle.block_on(self.client().socket(uid, kind, family))
    }

    /// Has the holder keep something.
    pub(crate) fn keep(&self, memfd: OwnedFd) {
        self.handle.block_on(self.client().keep(memfd));
    }

    /// A round trip: what was asked before has been done.
    pub(crate) fn round_trip(&self) -> Vec<weir_node::handover::FeatureReport> {
        self.handle.block_on(self.client().features()).expect("an answer")
    }

    /// Listeners that were kept.
    pub(crate) fn take(&self, uid: &str) -> Pair {
        self.kept.lock().expect("listeners").remove(uid).expect("kept listeners")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.client = None;
        drop(self.stop.take());
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(
    mut events: tokio::sync::mpsc::Receiver<HolderEvent>,
    tell: mpsc::SyncSender<Heard>,
    mode: Mode,
    keep: Arc<Mutex<HashMap<String, Pair>>>,
) {
    let mut serving: HashMap<String, Vec<oneshot::Sender<()>>> = HashMap::new();
    while let Some(event) = events.recv().await {
        let heard = match event {
            HolderEvent::Enrolled { uid, outbound, inbound } => {
                let pair = (TcpListener::from(outbound), TcpListener::from(inbound));
                match mode {
                    Mode::Answer => {
                        serving.insert(uid.clone(), vec![spawn("outbound", pair.0), spawn("inbound", pair.1)]);
                    }
                    Mode::Keep => {
                        for listener in [&pair.0, &pair.1] {
                            listener.set_nonblocking(false).expect("blocking mode");
                        }
                        keep.lock().expect("listeners").insert(uid.clone(), pair);
                    }
                }
                Heard::Enrolled(uid)
            }
            HolderEvent::Unenrolled { uid } => {
                serving.remove(&uid);
                Heard::Unenrolled(uid)
            }
            HolderEvent::Refused { uid, reason } => Heard::Refused(uid, reason),
            HolderEvent::Vault(memfd) => Heard::Vault(OwnedFdEq(memfd)),
            HolderEvent::Synced => Heard::Synced,
            HolderEvent::Lost => Heard::Lost,
        };
        if tell.send(heard).is_err() {
            return;
        }
    }
}

/// Answers until the sender is dropped, then what is in the queue, then closes.
fn spawn(who: &'static str, listener: TcpListener) -> oneshot::Sender<()> {
    let (serving, mut over) = oneshot::channel();
    let waiting = listener.try_clone().expect("descriptor");
    let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
    tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _peer)) => greet(who, stream).await,
                    Err(_over) => return,
                },
                _over = &mut over => break,
            }
        }
        while let Ok((stream, _peer)) = waiting.accept() {
            stream.set_nonblocking(true).expect("non-blocking mode");
            greet(who, tokio::net::TcpStream::from_std(stream).expect("stream")).await;
        }
    });
    serving
}

async fn greet(who: &str, mut stream: tokio::net::TcpStream) {
    if let (Ok(local), Ok(peer)) = (stream.local_addr(), stream.peer_addr()) {
        // A client that left does not matter.
        let _gone = stream.write_all(words(who, local, peer).as_bytes()).await;
    }
}
