//! One pod's way in and out. The order of the steps is what keeps connections from being refused on the way.
//!
//! Must never leave a step behind that `undo` does not take back.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
    time::Instant,
};

use tokio::sync::mpsc;
use weir_ebpf_loader::{Filled, LoadError, Programs, Slot, sockopt};

use super::{
    Event, diag,
    error::PodError,
    inside::{self, Facts, Pair},
    monitor::{self, Monitor},
    namespace::Namespace,
    routing::Routing,
    settings::{probed, settings},
    sockets,
    state::{Marks, PodState, StateDirectory, key},
};
use crate::{
    handover::{Family, PodSpec, SocketKind},
    limits,
};

/// What pods are enrolled with.
pub(super) struct Machine {
    /// Kernel side.
    pub(super) programs: Programs,
    /// What a successor will read.
    pub(super) state: StateDirectory,
    /// Where monitors tell.
    pub(super) events: mpsc::Sender<Event>,
    /// Inode of the node's namespace.
    pub(super) node: u64,
}

/// A pod's listeners; proxies have descriptors of the same sockets.
#[derive(Clone)]
pub(super) struct Listeners {
    /// Takes what the pod sends.
    pub(super) outbound: Arc<OwnedFd>,
    /// Takes what is sent to the pod.
    pub(super) inbound: Arc<OwnedFd>,
}

impl From<Pair> for Listeners {
    fn from(pair: Pair) -> Listeners {
        Listeners { outbound: Arc::new(pair.outbound), inbound: Arc::new(pair.inbound) }
    }
}

impl Listeners {
    fn ports(&self) -> Result<[u16; 2], PodError> {
        let port =
            |socket: &OwnedFd| sockets::port(socket.as_fd()).map_err(PodError::step("reading the port of a listener"));
        Ok([port(&self.outbound)?, port(&self.inbound)?])
    }
}

/// Where a pod is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Captured.
    Enrolled,
    /// New connects are not captured; the lookup still takes those that were marked before.
    Releasing(Instant),
    /// No lookup; the listeners complete the handshakes that they began.
    Settling(Instant),
    /// Open captured connections still need rule, route and switches.
    Draining(Instant),
}

/// What a step out came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// More steps later.
    Later,
    /// Listeners are closed: tell the proxies.
    Listeners,
    /// Nothing is left.
    Everything,
}

/// One pod.
pub(super) struct Pod {
    /// As written down.
    pub(super) state: PodState,
    key: String,
    namespace: Namespace,
    /// None while a returning proxy may still have them.
    pub(super) listeners: Option<Listeners>,
    /// Where it is.
    pub(super) phase: Phase,
    /// A proxy or a file asked this holder for it: they say too when it is wanted no more.
    pub(super) is_declared: bool,
    monitor: Option<Monitor>,
    /// When to look after rules next.
    pub(super) check: Instant,
}

impl Pod {
    /// Enrols a pod whose namespace is at `netns`. On failure nothing is left behind.
    pub(super) fn enrol(
        machine: &mut Machine,
        spec: PodSpec,
        netns: &Path,
        slot: u32,
        marks: Marks,
    ) -> Result<Pod, PodError> {
        if spec.uid.is_empty() || spec.uid.len() > 128 {
            return Err(PodError::Uid(spec.uid));
        }
        let failed = |source| PodError::Namespace { path: netns.to_owned(), source };
        let namespace = Namespace::open(netns).map_err(failed)?;
        if namespace.inode() == machine.node {
            return Err(PodError::HostNetwork);
        }
        let facts = namespace.inside(inside::inspect).map_err(failed)??;
        let addresses = chosen(&spec, &facts)?;
        let state = PodState {
            netns: namespace.path().to_owned(),
            inode: namespace.inode(),
            cookie: facts.cookie,
            slot,
            marks,
            addresses,
            ports: [0; 2],
            turned: Vec::new(),
            leaving: false,
            spec,
        };
        let mut pod = Pod {
            key: key(&state.spec.uid),
            state,
            namespace,
            listeners: None,
            phase: Phase::Enrolled,
            is_declared: false,
            monitor: None,
            check: Instant::now() + limits::RECHECK,
        };
        match pod.build(machine) {
            Ok(()) => Ok(pod),
            Err(error) => {
                pod.undo(machine);
                Err(error)
            }
        }
    }

    fn build(&mut self, machine: &mut Machine) -> Result<(), PodError> {
        // Written down before anything is touched: whoever comes after a crash finds what there is to undo.
        self.save(machine)?;
        let listeners = Listeners::from(self.prepare(machine)?);
        let slot = self.state.slot;
        self.state.ports = listeners.ports()?;
        self.save(machine)?;
        self.configure(machine)?;
        machine.programs.set_listener(Slot::Outbound(slot), &listeners.outbound, true)?;
        machine.programs.set_listener(Slot::Inbound(slot), &listeners.inbound, true)?;
        machine.programs.attach_pod(&self.key, slot, self.namespace.as_fd())?;
        // Last: what is marked from here on finds everything in place.
        machine.programs.capture(self.state.cookie, slot)?;
        self.listeners = Some(listeners);
        Ok(())
    }

    /// All that is done inside the namespace: ears, listeners, then routing.
    fn prepare(&mut self, machine: &Machine) -> Result<Pair, PodError> {
        let (marks, routing) = (self.state.marks, self.routing());
        let work = move || -> Result<_, PodError> {
            let ear = monitor::open().map_err(PodError::step("listening for changes in the pod's namespace"))?;
            let pair = inside::listen(marks)?;
            let (turned, _changes) = inside::route(&routing)?;
            Ok((ear, pair, turned))
        };
        let (ear, pair, turned) =
            self.namespace.inside(work).map_err(PodError::step("entering the pod's namespace"))??;
        if !turned.is_empty() {
            self.state.turned = turned;
            self.save(machine)?;
        }
        let monitor = monitor::start(ear, self.state.spec.uid.clone(), machine.events.clone());
        self.monitor = Some(monitor.map_err(PodError::step("listening for changes in the pod's namespace"))?);
        Ok(pair)
    }

    /// Takes over a pod that an earlier holder of this node enrolled. None when its namespace is gone; then nothing is left of it.
    pub(super) fn resume(machine: &mut Machine, state: PodState) -> Option<Pod> {
        let key = key(&state.spec.uid);
        let namespace = Namespace::open(&state.netns).ok().filter(|namespace| namespace.inode() == state.inode);
        let Some(namespace) = namespace else {
            forget(machine, &key, state.cookie, state.slot);
            return None;
        };
        let leaving = state.leaving;
        let phase = if leaving { Phase::Releasing(Instant::now()) } else { Phase::Enrolled };
        let check = Instant::now() + limits::RECHECK;
        let mut pod = Pod { state, key, namespace, listeners: None, phase, is_declared: false, monitor: None, check };
        if leaving {
            return Some(pod);
        }
        match pod.rebuild(machine) {
            Ok(()) => Some(pod),
            Err(error) => {
                tracing::error!(uid = pod.state.spec.uid, %error, "cannot take over a captured pod; it is released");
                pod.undo(machine);
                None
            }
        }
    }

    fn rebuild(&mut self, machine: &mut Machine) -> Result<(), PodError> {
        let listeners = Listeners::from(self.prepare(machine)?);
        let slot = self.state.slot;
        // A slot that is not empty holds a socket that a living proxy has: it will give it back.
        let outbound = machine.programs.set_listener(Slot::Outbound(slot), &listeners.outbound, false)?;
        let inbound = machine.programs.set_listener(Slot::Inbound(slot), &listeners.inbound, false)?;
        for ((filled, port), old) in [outbound, inbound].into_iter().zip(listeners.ports()?).zip(&mut self.state.ports)
        {
            if filled == Filled::Now {
                *old = port;
            }
        }
        self.save(machine)?;
        self.configure(machine)?;
        machine.programs.attach_pod(&self.key, slot, self.namespace.as_fd())?;
        machine.programs.capture(self.state.cookie, slot)?;
        if (outbound, inbound) == (Filled::Now, Filled::Now) {
            self.listeners = Some(listeners);
        }
        Ok(())
    }

    /// A proxy gives the listeners back that an earlier holder made. Says whether they are in use now.
    pub(super) fn adopt(
        &mut self,
        machine: &mut Machine,
        outbound: OwnedFd,
        inbound: OwnedFd,
    ) -> Result<bool, PodError> {
        if self.listeners.is_some() || self.phase != Phase::Enrolled {
            return Ok(false);
        }
        for socket in [&outbound, &inbound] {
            let cookie =
                sockopt::netns_cookie(socket.as_fd()).map_err(PodError::step("reading a returned listener"))?;
            if cookie != self.state.cookie {
                return Ok(false);
            }
        }
        self.install(machine, Listeners::from(Pair { outbound, inbound }))?;
        Ok(true)
    }

    /// Nobody gave listeners back: opens new ones in their place.
    pub(super) fn listen_anew(&mut self, machine: &mut Machine) -> Result<(), PodError> {
        let marks = self.state.marks;
        let pair = self
            .namespace
            .inside(move || inside::listen(marks))
            .map_err(PodError::step("entering the pod's namespace"))??;
        self.install(machine, pair.into())
    }

    fn install(&mut self, machine: &mut Machine, listeners: Listeners) -> Result<(), PodError> {
        machine.programs.set_listener(Slot::Outbound(self.state.slot), &listeners.outbound, true)?;
        machine.programs.set_listener(Slot::Inbound(self.state.slot), &listeners.inbound, true)?;
        self.state.ports = listeners.ports()?;
        self.save(machine)?;
        self.configure(machine)?;
        self.listeners = Some(listeners);
        Ok(())
    }

    /// Applies a changed specification.
    pub(super) fn update(&mut self, machine: &mut Machine, spec: PodSpec) -> Result<(), PodError> {
        let facts =
            self.namespace.inside(inside::inspect).map_err(PodError::step("entering the pod's namespace"))??;
        let addresses = chosen(&spec, &facts)?;
        // For its errors: a bad one must not replace a good one.
        settings(&spec, &addresses, self.state.marks, self.state.ports)?;
        self.state.spec = spec;
        self.state.addresses = addresses;
        self.repair(machine)?;
        self.configure(machine)?;
        self.save(machine)
    }

    /// Looks after rules, routes, switches and addresses. Says how much it had to change.
    pub(super) fn repair(&mut self, machine: &mut Machine) -> Result<usize, PodError> {
        self.check = Instant::now() + limits::RECHECK;
        if self.state.spec.addresses.is_empty() {
            self.follow_addresses(machine)?;
        }
        let routing = self.routing();
        let (_turned, changes) = self
            .namespace
            .inside(move || inside::route(&routing))
            .map_err(PodError::step("entering the pod's namespace"))??;
        Ok(changes)
    }

    fn follow_addresses(&mut self, machine: &mut Machine) -> Result<(), PodError> {
        let facts = self.namespace.inside(inside::inspect).map_err(PodError::step("entering the pod's namespace"))?;
        // A conflict that arises later does not end a capture that works; no address leaves the old ones in place.
        let Some(addresses) = facts.ok().and_then(|facts| chosen(&self.state.spec, &facts).ok()) else { return Ok(()) };
        if addresses != self.state.addresses {
            self.state.addresses = addresses;
            self.configure(machine)?;
            self.save(machine)?;
        }
        Ok(())
    }

    /// Whether the namespace is still the pod's.
    pub(super) fn is_alive(&self) -> bool {
        self.namespace.is_named()
    }

    /// Dial sockets.
    pub(super) fn sockets(
        &self,
        kind: SocketKind,
        family: Family,
        count: usize,
    ) -> Result<Vec<Arc<OwnedFd>>, PodError> {
        let marks = self.state.marks;
        let count = count.clamp(1, limits::STOCK_MAX);
        let work = move || {
            (0..count).map(|_index| sockets::dial(marks, kind, family).map(Arc::new)).collect::<io::Result<_>>()
        };
        let made = self.namespace.inside(work).map_err(PodError::step("entering the pod's namespace"))?;
        made.map_err(PodError::step("making a socket in the pod's namespace"))
    }

    /// Begins to let the pod go.
    pub(super) fn leave(&mut self, machine: &mut Machine) -> Result<(), PodError> {
        if self.phase == Phase::Enrolled {
            machine.programs.release(self.state.cookie)?;
            self.phase = Phase::Releasing(Instant::now() + limits::RELEASE_SETTLE);
            self.state.leaving = true;
            self.save(machine)?;
        }
        Ok(())
    }

    /// Captures the pod again while connections from before still drain, which may be for ever. They go on as they are: same marks, rule
    /// and routes. On failure it goes on draining.
    pub(super) fn come_back(&mut self, machine: &mut Machine, spec: PodSpec) -> Result<(), PodError> {
        let facts =
            self.namespace.inside(inside::inspect).map_err(PodError::step("entering the pod's namespace"))??;
        self.state.addresses = chosen(&spec, &facts)?;
        self.state.spec = spec;
        self.state.leaving = false;
        if let Err(error) = self.build(machine) {
            self.monitor = None;
            self.state.leaving = true;
            // Each of them may not have been done.
            let _released = machine.programs.release(self.state.cookie);
            let _detached = machine.programs.detach_pod(&self.key);
            let _closed = self.close(machine);
            self.save(machine)?;
            return Err(error);
        }
        self.phase = Phase::Enrolled;
        self.check = Instant::now() + limits::RECHECK;
        Ok(())
    }

    /// When [`Pod::step_out`] has something to do.
    pub(super) fn due(&self) -> Instant {
        match self.phase {
            Phase::Enrolled => self.check,
            Phase::Releasing(at) | Phase::Settling(at) | Phase::Draining(at) => at,
        }
    }

    /// Does the next step out.
    pub(super) fn step_out(&mut self, machine: &mut Machine) -> Result<Left, PodError> {
        match self.phase {
            Phase::Enrolled => Ok(Left::Later),
            Phase::Releasing(_) => {
                machine.programs.release(self.state.cookie)?;
                machine.programs.detach_pod(&self.key)?;
                self.phase = Phase::Settling(Instant::now() + limits::LISTENER_SETTLE);
                Ok(Left::Later)
            }
            Phase::Settling(_) => {
                self.close(machine)?;
                self.monitor = None;
                self.phase = Phase::Draining(Instant::now());
                Ok(Left::Listeners)
            }
            Phase::Draining(_) => {
                let mark = self.state.marks.capture;
                let busy = self.namespace.inside(move || diag::has_marked(mark)).and_then(|busy| busy);
                if busy.map_err(PodError::step("counting captured connections"))? && self.is_alive() {
                    self.phase = Phase::Draining(Instant::now() + limits::DRAIN_CHECK);
                    return Ok(Left::Later);
                }
                self.undo(machine);
                Ok(Left::Everything)
            }
        }
    }

    fn close(&mut self, machine: &mut Machine) -> Result<(), LoadError> {
        let slot = self.state.slot;
        machine.programs.clear_listener(Slot::Outbound(slot))?;
        machine.programs.clear_listener(Slot::Inbound(slot))?;
        machine.programs.remove_settings(slot)?;
        self.listeners = None;
        Ok(())
    }

    /// Takes everything back at once, whatever was done. Failures are logged: there is no one to give them to.
    pub(super) fn undo(&mut self, machine: &mut Machine) {
        self.monitor = None;
        // While anything is captured it needs its routes and listeners.
        for error in stop_capture(machine, &self.key, self.state.cookie).into_iter().filter_map(Result::err) {
            tracing::warn!(uid = self.state.spec.uid, %error, "a pod that leaves is still captured");
        }
        self.listeners = None;
        let turned = std::mem::take(&mut self.state.turned);
        let cleared = self.namespace.inside(move || inside::clear(&turned)).and_then(|cleared| cleared);
        if let Err(error) = cleared {
            tracing::warn!(uid = self.state.spec.uid, %error, "rules of a pod that left could not be removed");
        }
        forget(machine, &self.key, self.state.cookie, self.state.slot);
    }

    /// Writes what the kernel programs know of the pod.
    fn configure(&self, machine: &mut Machine) -> Result<(), PodError> {
        let PodState { spec, addresses, marks, ports, slot, .. } = &self.state;
        machine.programs.set_settings(*slot, &settings(spec, addresses, *marks, *ports)?)?;
        // Without these the pod is captured all the same.
        if let Err(error) = machine.programs.set_probed(*slot, &probed(spec, addresses)) {
            tracing::error!(uid = spec.uid, %error, "kubelet's probes of this pod are not all told from other connections");
        }
        Ok(())
    }

    fn routing(&self) -> Routing {
        Routing { mark: self.state.marks.capture, addresses: self.state.addresses.clone() }
    }

    fn save(&self, machine: &Machine) -> Result<(), PodError> {
        machine.state.save(&self.key, &self.state).map_err(PodError::step("writing the holder's state directory"))
    }
}

fn chosen(spec: &PodSpec, facts: &Facts) -> Result<Vec<IpAddr>, PodError> {
    let addresses = if spec.addresses.is_empty() { &facts.addresses } else { &spec.addresses };
    if addresses.is_empty() { Err(PodError::NoAddress) } else { Ok(addresses.clone()) }
}

/// From here on nothing new of the pod is captured.
fn stop_capture(machine: &mut Machine, key: &str, cookie: u64) -> [Result<(), LoadError>; 2] {
    [machine.programs.release(cookie), machine.programs.detach_pod(key)]
}

/// Removes what the kernel and the state directory hold of a pod, in the order in which nothing is refused.
pub(super) fn forget(machine: &mut Machine, key: &str, cookie: u64, slot: u32) {
    let stopped = stop_capture(machine, key, cookie);
    let programs = &mut machine.programs;
    let cleared = [
        programs.clear_listener(Slot::Outbound(slot)),
        programs.clear_listener(Slot::Inbound(slot)),
        programs.remove_settings(slot),
    ];
    for error in stopped.into_iter().chain(cleared).filter_map(Result::err) {
        tracing::warn!(key, %error, "a part of a pod that left could not be removed");
    }
    if let Err(error) = machine.state.remove(key) {
        tracing::warn!(key, %error, "the state of a pod that left could not be removed");
    }
}
