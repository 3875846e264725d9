//! The programs and maps of one node, loaded once and pinned, so that they outlive the process that loaded them.
//!
//! Must never leave a moment in which a program is detached while it is being replaced.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd, BorrowedFd},
    path::Path,
    sync::OnceLock,
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{HashMap, Map, MapData, MapError, MapInfo, SockMap},
    programs::{CgroupSockAddr, ProgramFd, SkLookup, SockOps},
};
use weir_ebpf_common::{MAX_PODS, PodSettings, Probed, Probing, inbound_slot, outbound_slot};

use crate::{
    LoadError,
    bpffs::{self, Place, inode_of, namespace_of},
    object, probe,
    probed::ProbedPorts,
    sockopt, sys,
};

const CONNECT: [(&str, &str, u32); 2] =
    [("weir_connect4", "connect4", sys::CGROUP_CONNECT4), ("weir_connect6", "connect6", sys::CGROUP_CONNECT6)];
const PROBES: &str = "weir_probes";
const LOOKUP: &str = "weir_lookup";
const BPF_NOEXIST: u64 = 1;

/// One of a pod's two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Takes what the pod sends.
    Outbound(u32),
    /// Takes what is sent to the pod.
    Inbound(u32),
}

impl Slot {
    fn index(self) -> u32 {
        match self {
            Slot::Outbound(slot) => outbound_slot(slot),
            Slot::Inbound(slot) => inbound_slot(slot),
        }
    }
}

/// What became of a listener offered to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// It is in the slot.
    Now,
    /// Another socket, which somebody else holds open, was there and stays.
    Before,
}

/// The kernel side of one node's capture.
pub struct Programs {
    place: Place,
    loader: EbpfLoader<'static>,
    pods: HashMap<MapData, u64, u32>,
    settings: HashMap<MapData, u32, PodSettings>,
    listeners: SockMap<MapData>,
    /// By slot; at most `MAX_PODS`.
    lookups: BTreeMap<u32, ProgramFd>,
    probed: ProbedPorts,
}

impl Programs {
    /// Loads the programs, or takes over the maps and links that an earlier process pinned, with this version's programs in
    /// the place of its own.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(place: Place, cgroup: &Path) -> Result<Programs, LoadError> {
        check_shape(&place, "PODS", size_of::<u32>())?;
        check_shape(&place, "SETTINGS", size_of::<PodSettings>())?;
        let mut loader = loader(&place)?;
        let mut object = loader.load(object::embedded()?)?;
        let group = fs::File::open(cgroup).map_err(|source| LoadError::Cgroup { path: cgroup.to_owned(), source })?;
        for (name, pin, attach_type) in CONNECT {
            let program: &mut CgroupSockAddr = program(&mut object, name)?;
            program.load().map_err(|source| LoadError::Program { name, source })?;
            let program = program.fd().map_err(|source| LoadError::Program { name, source })?;
            let pin = place.directory().join(pin);
            attach(program.as_fd(), group.as_fd(), attach_type, &pin, Target::Cgroup)?;
        }
        // Capture works without; policy then decides about kubelet as about anybody.
        let known = if probe::can_know_probes() {
            attach_probes(&mut object, &place, group.as_fd())
        } else {
            Err(LoadError::Kernel("Linux 5.15 (bpf_get_netns_cookie in sock_ops)"))
        };
        if let Err(error) = known {
            tracing::error!(%error, "kubelet's probes cannot be told from other connections");
        }
        Ok(Programs {
            probed: ProbedPorts::new(typed(&mut object, "PROBED")?),
            pods: typed(&mut object, "PODS")?,
            settings: typed(&mut object, "SETTINGS")?,
            listeners: typed(&mut object, "LISTENERS")?,
            lookups: BTreeMap::new(),
            place,
            loader,
        })
    }

    /// Where the pins are.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Attaches the socket lookup of pod `slot` to its namespace, or replaces the one that is there. `key` names the pin:
    /// letters, digits, `-` and `_`.
    ///
    /// # Errors
    /// See [`LoadError`]. Nothing is left attached on failure.
    pub fn attach_pod(&mut self, key: &str, slot: u32, netns: BorrowedFd<'_>) -> Result<(), LoadError> {
        self.prepare(slot)?;
        let program = self.lookups.get(&slot).ok_or(LoadError::Slot(slot))?;
        attach(program.as_fd(), netns, sys::SK_LOOKUP, &self.place.pod(key), Target::Namespace)
    }

    /// Whether the socket lookup of a slot is loaded already.
    pub fn is_prepared(&self, slot: u32) -> bool {
        self.lookups.contains_key(&slot)
    }

    /// Loads the socket lookup of a slot, which stays for whatever pod gets that slot: the kernel takes 7 ms of a processor to
    /// verify it, all the rest of an enrolment 2.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn prepare(&mut self, slot: u32) -> Result<(), LoadError> {
        if self.is_prepared(slot) {
            return Ok(());
        }
        let value = SLOTS.get(slot as usize).ok_or(LoadError::Slot(slot))?;
        let mut object = self.loader.override_global("SLOT", value, true).load(object::embedded()?)?;
        let program: &mut SkLookup = program(&mut object, LOOKUP)?;
        let failed = |source| LoadError::Program { name: LOOKUP, source };
        program.load().map_err(failed)?;
        let kept = program.fd().map_err(failed)?.try_clone().map_err(|error| failed(error.into()))?;
        self.lookups.insert(slot, kept);
        Ok(())
    }

    /// Lets the socket lookup of a slot go that no pod has. Attached ones live on without this process.
    pub fn discard(&mut self, slot: u32) {
        self.lookups.remove(&slot);
    }

    /// Detaches the socket lookup of a pod: it decides about no connection that begins from here on. Without one, does nothing.
    ///
    /// # Errors
    /// [`LoadError::Bpffs`].
    pub fn detach_pod(&self, key: &str) -> Result<(), LoadError> {
        bpffs::unlink(&self.place.pod(key))
    }

    /// Writes what the programs know of a pod, whole.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn set_settings(&mut self, slot: u32, settings: &PodSettings) -> Result<(), LoadError> {
        self.settings.insert(slot, settings, 0).map_err(|source| LoadError::Map { name: "SETTINGS", source })
    }

    /// Which of the node's own connections to a pod are special: an address and a port (or 0) of the pod each, and `PROBE_…`.
    ///
    /// # Errors
    /// [`LoadError::Map`] for the first that found no room; the others are in force.
    pub fn set_probed(&mut self, slot: u32, probed: &[(Probed, u32)]) -> Result<(), LoadError> {
        self.probed.set(slot, probed)
    }

    /// Forgets a pod. Its lookup must be detached and its cookie released before.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn remove_settings(&mut self, slot: u32) -> Result<(), LoadError> {
        self.probed.set(slot, &[])?;
        absent_is_fine(self.settings.remove(&slot)).map_err(|source| LoadError::Map { name: "SETTINGS", source })
    }

    /// From now on connects in the namespace with this cookie are captured.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn capture(&mut self, cookie: u64, slot: u32) -> Result<(), LoadError> {
        self.pods.insert(cookie, slot, 0).map_err(|source| LoadError::Map { name: "PODS", source })
    }

    /// From now on they are not.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn release(&mut self, cookie: u64) -> Result<(), LoadError> {
        absent_is_fine(self.pods.remove(&cookie)).map_err(|source| LoadError::Map { name: "PODS", source })
    }

    /// All captured namespaces: cookie and slot.
    pub fn captured(&self) -> Vec<(u64, u32)> {
        self.pods.iter().filter_map(Result::ok).collect()
    }

    /// Slots that have settings.
    pub fn configured(&self) -> Vec<u32> {
        self.settings.keys().filter_map(Result::ok).collect()
    }

    /// Offers a listening socket to a slot.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn set_listener(&mut self, slot: Slot, socket: &impl AsRawFd, replace: bool) -> Result<Filled, LoadError> {
        let flags = if replace { 0 } else { BPF_NOEXIST };
        match self.listeners.set(slot.index(), socket, flags) {
            Ok(()) => Ok(Filled::Now),
            Err(error) if !replace && errno(&error) == Some(libc::EEXIST) => Ok(Filled::Before),
            Err(source) => Err(LoadError::Map { name: "LISTENERS", source }),
        }
    }

    /// Empties a slot.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn clear_listener(&mut self, slot: Slot) -> Result<(), LoadError> {
        let cleared = self.listeners.clear_index(&slot.index());
        match cleared {
            // A sockmap says EINVAL for an empty slot.
            Err(error) if errno(&error) == Some(libc::EINVAL) => Ok(()),
            other => absent_is_fine(other).map_err(|source| LoadError::Map { name: "LISTENERS", source }),
        }
    }
}

/// Entries that a node's pinned maps hold of its pods: captured namespaces, settings, and ports with probes.
///
/// # Errors
/// [`LoadError::Map`], also when nothing is pinned.
pub fn entries(place: &Place) -> Result<usize, LoadError> {
    fn count<K: aya::Pod, V: aya::Pod>(place: &Place, name: &'static str) -> Result<usize, MapError> {
        let map = Map::HashMap(MapData::from_pin(place.directory().join(name))?);
        Ok(HashMap::<MapData, K, V>::try_from(map)?.keys().filter(Result::is_ok).count())
    }
    let pods = count::<u64, u32>(place, "PODS").map_err(|source| LoadError::Map { name: "PODS", source })?;
    let settings =
        count::<u32, PodSettings>(place, "SETTINGS").map_err(|source| LoadError::Map { name: "SETTINGS", source })?;
    let probed =
        count::<Probed, Probing>(place, "PROBED").map_err(|source| LoadError::Map { name: "PROBED", source })?;
    Ok(pods + settings + probed)
}

/// What `SLOT` can be, each for as long as a loader lives.
static SLOTS: [u32; MAX_PODS as usize] = {
    let mut slots = [0; MAX_PODS as usize];
    let mut slot = 0;
    while slot < MAX_PODS {
        slots[slot as usize] = slot;
        slot += 1;
    }
    slots
};
static NO_SLOT: u32 = u32::MAX;
static CAN_SET_ERRNO: [u32; 2] = [0, 1];
static NODE_COOKIE: OnceLock<u64> = OnceLock::new();

/// Made once: a new loader reads all types of the kernel first (70 ms), which our programs do not use.
fn loader(place: &Place) -> Result<EbpfLoader<'static>, LoadError> {
    let own = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| sockopt::netns_cookie(socket.as_fd()));
    let own = own.map_err(LoadError::link("reading the cookie of the node's network namespace"))?;
    let can_set_errno = &CAN_SET_ERRNO[usize::from(probe::can_set_errno())];
    let mut loader = EbpfLoader::new();
    loader
        // Without a level the library's second try, for the log, fails with another error that hides the first.
        .verifier_log_level(VerifierLogLevel::STATS)
        .btf(None)
        .default_map_pin_directory(place.directory())
        .override_global("SLOT", &NO_SLOT, true)
        .override_global("CAN_SET_ERRNO", can_set_errno, true)
        .override_global("NODE_COOKIE", NODE_COOKIE.get_or_init(|| own), true);
    Ok(loader)
}

fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = object.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|_other_type| LoadError::Missing(name))
}

fn typed<M: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Result<M, LoadError> {
    let map = object.take_map(name).ok_or(LoadError::Missing(name))?;
    M::try_from(map).map_err(|source| LoadError::Map { name, source })
}

/// Knows the node's own connections to its pods.
fn attach_probes(object: &mut Ebpf, place: &Place, group: BorrowedFd<'_>) -> Result<(), LoadError> {
    let program: &mut SockOps = program(object, PROBES)?;
    let failed = |source| LoadError::Program { name: PROBES, source };
    program.load().map_err(failed)?;
    let program = program.fd().map_err(failed)?;
    attach(program.as_fd(), group, sys::CGROUP_SOCK_OPS, &place.directory().join("sock_ops"), Target::Cgroup)
}

enum Target {
    Cgroup,
    Namespace,
}

/// Puts `program` into the pinned link, or makes and pins one.
fn attach(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
    pin: &Path,
    kind: Target,
) -> Result<(), LoadError> {
    let name = pin.display();
    if let Ok(link) = sys::get(pin) {
        let same = match kind {
            Target::Cgroup => true,
            // A namespace that died leaves a link to nothing; a pod that came back has another namespace.
            Target::Namespace => {
                let both = namespace_of(link.as_fd()).and_then(|was| Ok(was == inode_of(target)?));
                both.map_err(LoadError::link(format!("reading link {name}")))?
            }
        };
        if same && sys::replace(link.as_fd(), program).is_ok() {
            return Ok(());
        }
        bpffs::unlink(pin)?;
    }
    let link = sys::link(program, target, attach_type).map_err(LoadError::link(format!("attaching for {name}")))?;
    sys::pin(link.as_fd(), pin).map_err(LoadError::link(format!("pinning {name}")))
}

fn check_shape(place: &Place, name: &str, expected: usize) -> Result<(), LoadError> {
    let path = place.directory().join(name);
    if !path.exists() {
        return Ok(());
    }
    let info = MapInfo::from_pin(&path).map_err(|source| LoadError::Map { name: "pinned map", source })?;
    let found = info.value_size();
    if found as usize == expected { Ok(()) } else { Err(LoadError::Shape { path, found, expected }) }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        MapError::KeyNotFound => Some(libc::ENOENT),
        _other => None,
    }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
