//! What the kernel programs and user space agree on: map keys and values, bounds, flags.
//!
//! Must never hold a type with implicit padding, a pointer or a Rust enum: the kernel writes and reads these bytes.
#![no_std]

/// Pods of one node at most. Kubelet's default is 110; large nodes run 250 to 500.
pub const MAX_PODS: u32 = 1024;
/// Listener slots: outbound and inbound of each pod.
pub const MAX_LISTENERS: u32 = MAX_PODS * 2;
/// Addresses of one pod: dual stack and a few secondary ones.
pub const MAX_ADDRESSES: usize = 8;
/// Port ranges that one direction of one pod may exclude. More would cost instructions on each connect.
pub const MAX_PORT_RANGES: usize = 32;
/// Subnets that one pod may exclude.
pub const MAX_SUBNETS: usize = 32;

/// Ports of pods that are told apart for kubelet: a port each, and one for all others, at each of a pod's addresses.
pub const MAX_PROBED: u32 = MAX_PODS * 32;
/// Connections of the node to its pods that are on their way. Entries go when the connection is established, refused or given up; the
/// least recently used makes room for one more.
pub const MAX_PROBES: u32 = 4096;

/// Connections of the node to this port go straight to the application: kubelet looks no further than whether it answers.
pub const PROBE_DIRECT: u32 = 1;
/// Connections of the node to this port go to the proxy, with [`PROBE_MARK`].
pub const PROBE_MARKED: u32 = 2;

/// Some port of the pod has [`PROBE_DIRECT`].
pub const FLAG_DIRECT_PROBES: u32 = 2;
/// When there is no listener the connection goes on uncaptured, instead of being refused.
pub const FLAG_PERMISSIVE: u32 = 1;

/// Mark of a connection that the proxy accepted and that a process in the node's own network namespace opened. Never a pod's mark.
pub const PROBE_MARK: u32 = 0x5752_5042;

/// Interface index of `lo` in every network namespace: the kernel creates it first.
pub const LOOPBACK_IFINDEX: u32 = 1;

/// Word of an IPv4-mapped IPv6 address that says so, in memory order.
pub const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// An IPv6 address, or an IPv4 address mapped into IPv6, as four words in memory (network) order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// Network order, read as they lie in memory.
    pub words: [u32; 4],
}

impl Address {
    /// `::ffff:a.b.c.d` of an IPv4 address given as it lies in memory (network order).
    #[inline(always)]
    pub const fn mapped(word: u32) -> Address {
        Address { words: [0, 0, MAPPED, word] }
    }

    /// From the 16 bytes of an IPv6 address.
    pub const fn from_octets(octets: [u8; 16]) -> Address {
        let o = octets;
        Address {
            words: [
                u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
                u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
                u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
                u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
            ],
        }
    }

    /// Whether it is IPv4 in IPv6's clothes.
    #[inline(always)]
    pub const fn is_mapped(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Loopback, or the unspecified address, which `connect` takes for loopback.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let last = u32::from_be(self.words[3]);
        if self.is_mapped() {
            return last >> 24 == 127 || last == 0;
        }
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == 0 && last <= 1
    }

    /// `fe80::/10`: bound to one interface, so that no policy route can catch it.
    #[inline(always)]
    pub const fn is_link_local_v6(&self) -> bool {
        u32::from_be(self.words[0]) & 0xffc0_0000 == 0xfe80_0000
    }

    /// Whether all words are equal. Not `==`: that may compile to a call of `memcmp`, which the kernel has not.
    #[inline(always)]
    pub const fn same(&self, other: &Address) -> bool {
        self.words[0] == other.words[0]
            && self.words[1] == other.words[1]
            && self.words[2] == other.words[2]
            && self.words[3] == other.words[3]
    }
}

/// Ports from `first` to `last`, both included, host order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// A subnet: an address belongs to it when its masked words equal `network`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// Network address, mapped for IPv4.
    pub network: Address,
    /// Mask; for IPv4 the first 96 bits are set.
    pub mask: Address,
}

impl Subnet {
    /// Whether `address` lies inside.
    #[inline(always)]
    pub const fn contains(&self, address: &Address) -> bool {
        address.words[0] & self.mask.words[0] == self.network.words[0]
            && address.words[1] & self.mask.words[1] == self.network.words[1]
            && address.words[2] & self.mask.words[2] == self.network.words[2]
            && address.words[3] & self.mask.words[3] == self.network.words[3]
    }
}

/// All that the programs know of one pod: the value of map `SETTINGS`, whose key is the pod's slot.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PodSettings {
    /// Mark of captured sockets: random per pod, exact. The pod may learn it; it gains nothing by that.
    pub capture_mark: u32,
    /// Mark of the proxy's own sockets in the pod's namespace: random per pod, exact, not to be seen from inside the pod.
    pub own_mark: u32,
    /// See `FLAG_…`.
    pub flags: u32,
    /// Used entries of `addresses`.
    pub address_count: u32,
    /// Used entries of `skip_inbound`.
    pub skip_inbound_count: u32,
    /// Used entries of `skip_outbound`.
    pub skip_outbound_count: u32,
    /// Used entries of `skip_subnets`.
    pub skip_subnet_count: u32,
    /// Ports, host order, that the pod's two listeners are bound to: nobody may reach them but through the lookup.
    pub listener_ports: [u16; 2],
    /// The pod's own addresses.
    pub addresses: [Address; MAX_ADDRESSES],
    /// Inbound ports that go straight to the application.
    pub skip_inbound: [PortRange; MAX_PORT_RANGES],
    /// Destination ports that are not captured.
    pub skip_outbound: [PortRange; MAX_PORT_RANGES],
    /// Destinations that are not captured.
    pub skip_subnets: [Subnet; MAX_SUBNETS],
}

impl Default for PodSettings {
    fn default() -> PodSettings {
        PodSettings {
            capture_mark: 0,
            own_mark: 0,
            flags: 0,
            address_count: 0,
            skip_inbound_count: 0,
            skip_outbound_count: 0,
            skip_subnet_count: 0,
            listener_ports: [0; 2],
            addresses: [Address::default(); MAX_ADDRESSES],
            skip_inbound: [PortRange::default(); MAX_PORT_RANGES],
            skip_outbound: [PortRange::default(); MAX_PORT_RANGES],
            skip_subnets: [Subnet::default(); MAX_SUBNETS],
        }
    }
}

const _NO_PADDING: () =
    assert!(size_of::<PodSettings>() == 32 + MAX_ADDRESSES * 16 + 2 * MAX_PORT_RANGES * 4 + MAX_SUBNETS * 32);

impl PodSettings {
    /// Whether `address` is one of the pod's own.
    #[inline(always)]
    pub fn owns(&self, address: &Address) -> bool {
        let mut index = 0;
        while index < MAX_ADDRESSES {
            if index as u32 >= self.address_count {
                return false;
            }
            if self.addresses[index].same(address) {
                return true;
            }
            index += 1;
        }
        false
    }

    /// Whether inbound connections to `port` are left alone.
    #[inline(always)]
    pub fn skips_inbound(&self, port: u16) -> bool {
        covers(&self.skip_inbound, self.skip_inbound_count, port)
    }

    /// Whether outbound connections to `address` and `port` are left alone.
    #[inline(always)]
    pub fn skips_outbound(&self, address: &Address, port: u16) -> bool {
        if covers(&self.skip_outbound, self.skip_outbound_count, port) {
            return true;
        }
        let mut index = 0;
        while index < MAX_SUBNETS {
            if index as u32 >= self.skip_subnet_count {
                return false;
            }
            if self.skip_subnets[index].contains(address) {
                return true;
            }
            index += 1;
        }
        false
    }

    /// Whether one of the pod's listeners is bound to `port`.
    #[inline(always)]
    pub const fn is_listener(&self, port: u16) -> bool {
        port == self.listener_ports[0] || port == self.listener_ports[1]
    }

    /// Whether some of the node's connections go straight to the application.
    #[inline(always)]
    pub const fn has_direct_probes(&self) -> bool {
        self.flags & FLAG_DIRECT_PROBES != 0
    }

    /// Whether a connection goes on uncaptured when there is nobody to take it.
    #[inline(always)]
    pub const fn permissive(&self) -> bool {
        self.flags & FLAG_PERMISSIVE != 0
    }
}

/// Key of map `PROBED`: an address of a pod, and one of its ports or 0 for all that are not named.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Probed {
    /// Address of the pod.
    pub address: Address,
    /// Host order.
    pub port: u32,
}

/// Value of map `PROBED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probing {
    /// Slot of the pod.
    pub slot: u32,
    /// `PROBE_…`
    pub how: u32,
}

/// Key of map `PROBES`: one connection of the node to a pod.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Address of the node's end.
    pub source: Address,
    /// Address of the pod.
    pub destination: Address,
    /// Port of the node's end, host order.
    pub source_port: u32,
    /// Port of the pod, host order.
    pub destination_port: u32,
}

#[inline(always)]
fn covers(ranges: &[PortRange; MAX_PORT_RANGES], count: u32, port: u16) -> bool {
    let mut index = 0;
    while index < MAX_PORT_RANGES {
        if index as u32 >= count {
            return false;
        }
        if ranges[index].first <= port && port <= ranges[index].last {
            return true;
        }
        index += 1;
    }
    false
}

/// Index in map `LISTENERS` of the socket that takes what the pod sends.
#[inline(always)]
pub const fn outbound_slot(slot: u32) -> u32 {
    slot * 2
}

/// Index in map `LISTENERS` of the socket that takes what is sent to the pod.
#[inline(always)]
pub const fn inbound_slot(slot: u32) -> u32 {
    slot * 2 + 1
}

// SAFETY: `repr(C)`, only integers, and no padding (asserted above).
#[cfg(feature = "user")]
unsafe impl aya::Pod for PodSettings {}
// SAFETY: `repr(C)`, only integers of one size.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Probed {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Probing {}

#[cfg(test)]
mod tests;
