//! The proxy's side of the handover: stays connected, keeps stocks, gives everything back to a new holder.
//!
//! Must never make a dial wait for the holder while there is a socket in stock.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::{
    Family, FeatureReport, HandoverError, HolderEvent, Part, PodSpec, Reply, Request, SocketKind, VERSION,
    channel::Channel,
    stock::{Refill, Stocks, Taken},
};
use crate::limits;

/// A handle to the holder; clones share everything.
#[derive(Clone)]
pub struct HolderClient {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

struct Shared {
    stocks: Mutex<Stocks>,
    // What a new holder is told: pods that we want captured, and what it must keep for us.
    declared: Mutex<HashMap<String, PodSpec>>,
    vault: Mutex<Option<Arc<OwnedFd>>>,
    // None: control has said nothing yet, and nothing is what a holder must hear of it.
    expected: Mutex<Option<Expected>>,
    leaving: AtomicBool,
}

/// What control said of pods that are not captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Control is connected and has told everything.
    pub current: bool,
    /// Uids of pods that start uncaptured.
    pub plain: Vec<String>,
    /// Namespaces whose pods are captured unless they say otherwise.
    pub meshed_namespaces: Vec<String>,
}

impl Expected {
    /// As messages, each within its bound.
    fn requests(&self) -> Vec<Request> {
        let say = |part: Part, plain: &[String], meshed_namespaces: &[String]| Request::Expect {
            part,
            plain: plain.to_vec(),
            meshed_namespaces: meshed_namespaces.to_vec(),
        };
        let plain = self.plain.chunks(limits::EXPECT_NAMES).map(|names| say(Part::Further, names, &[]));
        let meshed = self.meshed_namespaces.chunks(limits::EXPECT_NAMES).map(|names| say(Part::Further, &[], names));
        let last = say(Part::Last { current: self.current }, &[], &[]);
        std::iter::once(say(Part::First, &[], &[])).chain(plain).chain(meshed).chain([last]).collect()
    }
}

enum Command {
    Send(Request),
    Keep(Arc<OwnedFd>),
    Features(oneshot::Sender<Vec<FeatureReport>>),
}

impl HolderClient {
    /// Begins to connect to the holder's socket, for as long as a handle lives. Must be called on the admin runtime.
    pub async fn start(socket: PathBuf) -> (HolderClient, mpsc::Receiver<HolderEvent>) {
        let (commands, received) = mpsc::channel(limits::HANDOVER_QUEUE);
        let (events, told) = mpsc::channel(limits::HANDOVER_QUEUE);
        let shared = Arc::new(Shared {
            stocks: Mutex::default(),
            declared: Mutex::default(),
            vault: Mutex::default(),
            expected: Mutex::default(),
            leaving: AtomicBool::default(),
        });
        let connection = Connection {
            socket,
            shared: Arc::clone(&shared),
            commands: received,
            events,
            held: HashMap::new(),
            announced: HashSet::new(),
            features: Vec::new(),
            told: String::new(),
        };
        tokio::spawn(connection.run());
        (HolderClient { shared, commands }, told)
    }

    /// Asks for a pod to be captured, now and by any later holder. Idempotent; a changed specification is applied.
    pub async fn enrol(&self, spec: PodSpec) {
        self.shared.declared.lock().insert(spec.uid.clone(), spec.clone());
        self.command(Command::Send(Request::Enrol { spec })).await;
    }

    /// Asks for a pod to be captured no more.
    pub async fn unenrol(&self, uid: &str) {
        self.shared.declared.lock().remove(uid);
        self.command(Command::Send(Request::Unenrol { uid: uid.to_owned() })).await;
    }

    /// Passes on what control said of pods that are not captured, now and to any later holder. Only once control has said it.
    pub async fn expect(&self, expected: Expected) {
        if self.shared.expected.lock().as_ref() == Some(&expected) {
            return;
        }
        let requests = expected.requests();
        *self.shared.expected.lock() = Some(expected);
        for request in requests {
            self.command(Command::Send(request)).await;
        }
    }

    /// Says, now and to any later holder, that this proxy accepts no connection any more.
    pub async fn leaving(&self) {
        self.shared.leaving.store(true, Ordering::Release);
        self.command(Command::Send(Request::Leaving)).await;
    }

    /// A dial socket out of stock, if there is one.
    pub fn try_socket(&self, uid: &str, kind: SocketKind, family: Family) -> Option<OwnedFd> {
        match self.take(uid, kind, family) {
            Taken::Socket(socket) => Some(socket),
            Taken::Empty(_) | Taken::Refused(_) => None,
        }
    }

    /// A dial socket, out of stock or as soon as the holder sends some.
    ///
    /// # Errors
    /// [`HandoverError::Refused`] when the pod is not captured, [`HandoverError::Timeout`] without a holder.
    pub async fn socket(&self, uid: &str, kind: SocketKind, family: Family) -> Result<OwnedFd, HandoverError> {
        let deadline = time::Instant::now() + limits::STOCK_WAIT;
        loop {
            let arrived = match self.take(uid, kind, family) {
                Taken::Socket(socket) => return Ok(socket),
                Taken::Refused(reason) => return Err(HandoverError::Refused(reason)),
                Taken::Empty(arrived) => arrived,
            };
            let mut notified = Box::pin(arrived.notified());
            // Registered before the second look, or a batch that arrives between the two would be missed.
            notified.as_mut().enable();
            match self.take(uid, kind, family) {
                Taken::Socket(socket) => return Ok(socket),
                Taken::Refused(reason) => return Err(HandoverError::Refused(reason)),
                Taken::Empty(_) => {}
            }
            time::timeout_at(deadline, notified).await.map_err(|_elapsed| HandoverError::Timeout)?;
        }
    }

    /// Dial sockets in stock at this moment.
    pub fn in_stock(&self) -> usize {
        self.shared.stocks.lock().total()
    }

    /// Asks the holder to keep `memfd`, instead of what it kept before, and to hand it to the next proxy.
    pub async fn keep(&self, memfd: OwnedFd) {
        let memfd = Arc::new(memfd);
        *self.shared.vault.lock() = Some(Arc::clone(&memfd));
        self.command(Command::Keep(memfd)).await;
    }

    /// What this node's kernel can do, as the holder found by trying.
    ///
    /// # Errors
    /// [`HandoverError::Timeout`] without a holder.
    pub async fn features(&self) -> Result<Vec<FeatureReport>, HandoverError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Features(answer)).await;
        match time::timeout(limits::STOCK_WAIT, answered).await {
            Ok(Ok(features)) => Ok(features),
            Ok(Err(_)) | Err(_) => Err(HandoverError::Timeout),
        }
    }

    fn take(&self, uid: &str, kind: SocketKind, family: Family) -> Taken {
        let (taken, refill) = self.shared.stocks.lock().take(uid, kind, family, Instant::now());
        if let Some(Refill(count)) = refill {
            let request = Request::Sockets { uid: uid.to_owned(), kind, family, count };
            if self.commands.try_send(Command::Send(request)).is_err() {
                // The queue is full: whoever waits asks again after its time.
                self.shared.stocks.lock().refuse(uid, kind, family, "too many requests to the holder".to_owned());
            }
        }
        taken
    }

    async fn command(&self, command: Command) {
        if self.commands.send(command).await.is_err() {
            tracing::debug!("the connection to the holder is shut down");
        }
    }
}

struct Held {
    outbound: OwnedFd,
    inbound: OwnedFd,
    cookie: u64,
}

struct Connection {
    socket: PathBuf,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<HolderEvent>,
    // Duplicates of every listener, to be given back to a holder that lacks them.
    held: HashMap<String, Held>,
    // Pods announced since the last greeting.
    announced: HashSet<String>,
    features: Vec<oneshot::Sender<Vec<FeatureReport>>>,
    // Why there is no holder, as logged last.
    told: String,
}

/// The proxy let go of us.
struct Over;

impl Connection {
    async fn run(mut self) {
        loop {
            match Channel::connect(&self.socket) {
                Ok(channel) => {
                    match self.serve(&channel).await {
                        Ok(Over) => return,
                        Err(error) => self.log(&error),
                    }
                    self.shared.stocks.lock().lost();
                    if self.tell(HolderEvent::Lost).await.is_err() {
                        return;
                    }
                }
                Err(error) => self.log(&error.into()),
            }
            time::sleep(limits::HOLDER_RETRY).await;
            // What was asked meanwhile is told anew after the greeting; who waits for sockets asks again.
            while let Ok(command) = self.commands.try_recv() {
                if let Command::Features(answer) = command {
                    self.features.push(answer);
                }
            }
            self.shared.stocks.lock().lost();
            if self.commands.is_closed() {
                return;
            }
        }
    }

    /// Once for each reason: we try again often.
    fn log(&mut self, error: &HandoverError) {
        let reason = error.to_string();
        if self.told != reason {
            tracing::warn!(socket = %self.socket.display(), reason, "no holder; captured connections go on, and it is tried again");
            self.told = reason;
        }
    }

    async fn serve(&mut self, channel: &Channel) -> Result<Over, HandoverError> {
        self.greet(channel).await?;
        let mut sweep = time::interval(limits::STOCK_IDLE);
        loop {
            tokio::select! {
                received = channel.receive::<Reply>() => {
                    let (reply, fds) = received?;
                    if self.take(reply, fds).await?.is_err() {
                        return Ok(Over);
                    }
                }
                command = self.commands.recv() => match command {
                    Some(Command::Send(request)) => channel.send(&request, &[]).await?,
                    Some(Command::Keep(memfd)) => channel.send(&Request::Keep, &[memfd.as_fd()]).await?,
                    Some(Command::Features(answer)) => {
                        self.features.push(answer);
                        channel.send(&Request::Features, &[]).await?;
                    }
                    None => return Ok(Over),
                },
                _tick = sweep.tick() => self.shared.stocks.lock().sweep(Instant::now()),
            }
        }
    }

    async fn greet(&mut self, channel: &Channel) -> Result<(), HandoverError> {
        self.announced.clear();
        welcomed(channel).await?;
        self.told.clear();
        for (uid, held) in &self.held {
            let fds = [held.outbound.as_fd(), held.inbound.as_fd()];
            channel.send(&Request::Return { uid: uid.clone() }, &fds).await?;
        }
        let vault = self.shared.vault.lock().clone();
        if let Some(vault) = vault {
            channel.send(&Request::Keep, &[vault.as_fd()]).await?;
        }
        channel.send(&Request::Ready, &[]).await?;
        let declared: Vec<PodSpec> = self.shared.declared.lock().values().cloned().collect();
        for spec in declared {
            channel.send(&Request::Enrol { spec }, &[]).await?;
        }
        let expected = self.shared.expected.lock().as_ref().map(Expected::requests);
        for request in expected.into_iter().flatten() {
            channel.send(&request, &[]).await?;
        }
        if self.shared.leaving.load(Ordering::Acquire) {
            channel.send(&Request::Leaving, &[]).await?;
        }
        if !self.features.is_empty() {
            channel.send(&Request::Features, &[]).await?;
        }
        Ok(())
    }

    async fn take(&mut self, reply: Reply, fds: Vec<OwnedFd>) -> Result<Result<(), Over>, HandoverError> {
        let event = match reply {
            Reply::Vault => {
                let [vault] = exactly(fds)?;
                HolderEvent::Vault(vault)
            }
            Reply::Enrolled { uid, generation } => match self.enrolled(uid, generation, exactly(fds)?)? {
                Some(event) => event,
                None => return Ok(Ok(())),
            },
            Reply::Unenrolled { uid } => {
                self.held.remove(&uid);
                self.shared.stocks.lock().forget(&uid);
                HolderEvent::Unenrolled { uid }
            }
            Reply::Refused { uid, reason } => HolderEvent::Refused { uid, reason },
            Reply::Synced => {
                if let Err(over) = self.forget_unannounced().await {
                    return Ok(Err(over));
                }
                HolderEvent::Synced
            }
            Reply::Sockets { uid, generation, kind, family } => {
                self.shared.stocks.lock().put(&uid, generation, kind, family, fds);
                return Ok(Ok(()));
            }
            Reply::NoSockets { uid, kind, family, reason } => {
                self.shared.stocks.lock().refuse(&uid, kind, family, reason);
                return Ok(Ok(()));
            }
            // Heard before; and only plugins are answered so.
            Reply::Welcome { .. } | Reply::Arrived { .. } => return Ok(Ok(())),
            Reply::Features { features } => {
                for answer in self.features.drain(..) {
                    // Who asked may have stopped waiting.
                    let _gone = answer.send(features.clone());
                }
                return Ok(Ok(()));
            }
        };
        Ok(self.tell(event).await)
    }

    /// An event for listeners that are new to us; none for those that a holder announces again.
    fn enrolled(
        &mut self,
        uid: String,
        generation: u32,
        fds: [OwnedFd; 2],
    ) -> Result<Option<HolderEvent>, HandoverError> {
        self.shared.stocks.lock().enrolled(&uid, generation);
        self.announced.insert(uid.clone());
        let [outbound, inbound] = fds;
        let cookie = weir_ebpf_loader::sockopt::socket_cookie(outbound.as_fd())?;
        if self.held.get(&uid).is_some_and(|held| held.cookie == cookie) {
            return Ok(None);
        }
        let held = Held { outbound: outbound.try_clone()?, inbound: inbound.try_clone()?, cookie };
        self.held.insert(uid.clone(), held);
        Ok(Some(HolderEvent::Enrolled { uid, outbound, inbound }))
    }

    /// Pods that left while we were not connected.
    async fn forget_unannounced(&mut self) -> Result<(), Over> {
        let gone: Vec<String> = self.held.keys().filter(|uid| !self.announced.contains(*uid)).cloned().collect();
        for uid in gone {
            self.held.remove(&uid);
            self.shared.stocks.lock().forget(&uid);
            self.tell(HolderEvent::Unenrolled { uid }).await?;
        }
        Ok(())
    }

    async fn tell(&self, event: HolderEvent) -> Result<(), Over> {
        self.events.send(event).await.map_err(|_proxy_is_gone| Over)
    }
}

/// Says who we are, and nothing more to a holder that would not understand it.
async fn welcomed(channel: &Channel) -> Result<(), HandoverError> {
    channel.send(&Request::Hello { version: VERSION }, &[]).await?;
    match channel.receive().await? {
        (Reply::Welcome { version: VERSION }, _) => {
            tracing::info!(version = VERSION, "connected to the holder");
            Ok(())
        }
        (Reply::Welcome { version: holder }, _) => Err(HandoverError::Version { holder }),
        (other, _) => Err(HandoverError::Refused(format!("the holder began with {other:?}"))),
    }
}

fn exactly<const N: usize>(fds: Vec<OwnedFd>) -> Result<[OwnedFd; N], HandoverError> {
    let found = fds.len();
    fds.try_into().map_err(|_other_count| HandoverError::Descriptors { found, expected: N })
}

#[cfg(test)]
mod tests;
