//! Policy routing inside a pod: sockets with the capture mark are routed to `lo`, everything else as before.
//!
//! Must never touch a rule or a route that does not carry our protocol number.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage, AddressScope},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use super::netlink::Netlink;

/// Table of our one route.
pub(super) const TABLE: u8 = 100;
/// Preference of our one rule: before anything that other software adds.
pub(super) const PREFERENCE: u32 = 100;
/// How we recognise what is ours (`ip rule show` prints `proto 87`).
const OURS: RouteProtocol = RouteProtocol::Other(87);
const LOOPBACK: u32 = weir_ebpf_common::LOOPBACK_IFINDEX;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// What captured sockets of one pod need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Routing {
    /// Mark of captured sockets.
    pub(super) mark: u32,
    /// The pod's addresses; the first of each family is the source of captured sockets that have not chosen one.
    pub(super) addresses: Vec<IpAddr>,
}

impl Routing {
    fn source(&self, family: AddressFamily) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == (family == AddressFamily::Inet))
    }

    fn rule(&self, family: AddressFamily) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = family;
        rule.header.table = TABLE;
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Priority(PREFERENCE),
            RuleAttribute::FwMark(self.mark),
            RuleAttribute::FwMask(u32::MAX),
            RuleAttribute::Table(u32::from(TABLE)),
            RuleAttribute::Protocol(OURS),
        ];
        rule
    }

    /// The source is given because the kernel would take the destination for it. A family in which the pod has no address
    /// cannot be captured; it is closed, so that nothing leaves unseen.
    fn route(&self, family: AddressFamily) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        route.header.table = TABLE;
        route.header.protocol = OURS;
        match self.source(family) {
            Some(source) => {
                let source = match source {
                    IpAddr::V4(address) => RouteAddress::Inet(address),
                    IpAddr::V6(address) => RouteAddress::Inet6(address),
                };
                route.header.kind = RouteType::Local;
                route.header.scope = RouteScope::Host;
                route.attributes = vec![RouteAttribute::Oif(LOOPBACK), RouteAttribute::PrefSource(source)];
            }
            None => {
                route.header.kind = RouteType::Unreachable;
                route.header.scope = RouteScope::Universe;
            }
        }
        route
    }

    /// Makes what is missing, removes what is ours but stale. Returns how many things it had to change.
    pub(super) fn ensure(&self, netlink: &mut Netlink) -> io::Result<usize> {
        let mut changes = 0;
        for family in FAMILIES {
            // A family that the kernel or the namespace does not have cannot leak; without an address it is not needed.
            match self.ensure_family(netlink, family) {
                Ok(changed) => changes += changed,
                Err(error) if self.source(family).is_none() => {
                    tracing::debug!(?family, %error, "family without pod address not closed");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(changes)
    }

    fn ensure_family(&self, netlink: &mut Netlink, family: AddressFamily) -> io::Result<usize> {
        let mut changes = 0;
        // The route first: a rule that leads to an empty table falls through to the main table.
        let wanted = self.route(family);
        let (right, stale): (Vec<_>, Vec<_>) = routes(netlink, family)?
            .into_iter()
            .filter(|route| route.header.protocol == OURS)
            .partition(|route| same_route(route, &wanted));
        for route in stale {
            changes += 1;
            netlink.remove(RouteNetlinkMessage::DelRoute(route))?;
        }
        if right.is_empty() {
            changes += 1;
            netlink.create(RouteNetlinkMessage::NewRoute(wanted))?;
        }
        let (right, stale): (Vec<_>, Vec<_>) =
            rules(netlink, family)?.into_iter().filter(is_ours).partition(|rule| same_rule(rule, self.mark));
        if right.is_empty() {
            changes += 1;
            netlink.create(RouteNetlinkMessage::NewRule(self.rule(family)))?;
        }
        for rule in stale {
            changes += 1;
            netlink.remove(RouteNetlinkMessage::DelRule(rule))?;
        }
        Ok(changes)
    }
}

/// Removes every rule and route of ours. Returns how many there were.
pub(super) fn remove(netlink: &mut Netlink) -> io::Result<usize> {
    let mut removed = 0;
    for family in FAMILIES {
        for rule in rules(netlink, family)?.into_iter().filter(is_ours) {
            netlink.remove(RouteNetlinkMessage::DelRule(rule))?;
            removed += 1;
        }
        for route in routes(netlink, family)?.into_iter().filter(|route| route.header.protocol == OURS) {
            netlink.remove(RouteNetlinkMessage::DelRoute(route))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Says who else steers traffic here in a way that ours would not survive, or would break.
pub(super) fn conflict(netlink: &mut Netlink) -> io::Result<Option<String>> {
    for family in FAMILIES {
        for rule in rules(netlink, family)?.into_iter().filter(|rule| !is_ours(rule)) {
            let preference = preference(&rule);
            if table(&rule) == u32::from(TABLE) {
                return Ok(Some(format!(
                    "a policy rule of other software (preference {preference}) uses routing table {TABLE}"
                )));
            }
            // 0 is the kernel's own rule for local addresses.
            if preference != 0 && preference <= PREFERENCE {
                return Ok(Some(format!("a policy rule of other software has preference {preference}, before ours")));
            }
        }
        if routes(netlink, family)?.iter().any(|route| route.header.protocol != OURS) {
            return Ok(Some(format!("routing table {TABLE} is in use by other software (another mesh?)")));
        }
    }
    Ok(None)
}

/// Addresses by which others reach this namespace.
pub(super) fn addresses(netlink: &mut Netlink) -> io::Result<Vec<IpAddr>> {
    let found = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let mut addresses = Vec::new();
    for message in found {
        let RouteNetlinkMessage::NewAddress(message) = message else { continue };
        if message.header.index == LOOPBACK || message.header.scope != AddressScope::Universe {
            continue;
        }
        // IPv4 gives its own address as local, the peer's as address on point-to-point links; IPv6 gives address only.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _other => None,
        });
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _other => None,
        });
        addresses.extend(local.or(address));
    }
    Ok(addresses)
}

fn rules(netlink: &mut Netlink, family: AddressFamily) -> io::Result<Vec<RuleMessage>> {
    let mut request = RuleMessage::default();
    request.header.family = family;
    let found = match netlink.dump(RouteNetlinkMessage::GetRule(request)) {
        Err(error) if is_family_missing(&error) => return Ok(Vec::new()),
        found => found?,
    };
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRule(rule) if rule.header.family == family => Some(rule),
            _other => None,
        })
        .collect())
}

fn routes(netlink: &mut Netlink, family: AddressFamily) -> io::Result<Vec<RouteMessage>> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    let found = match netlink.dump(RouteNetlinkMessage::GetRoute(request)) {
        Err(error) if is_family_missing(&error) => return Ok(Vec::new()),
        found => found?,
    };
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.address_family == family && route.header.table == TABLE =>
            {
                Some(route)
            }
            _other => None,
        })
        .collect())
}

fn is_family_missing(error: &io::Error) -> bool {
    let missing = [rustix::io::Errno::OPNOTSUPP, rustix::io::Errno::AFNOSUPPORT].map(rustix::io::Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| missing.contains(&code))
}

fn is_ours(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(OURS))
}

fn preference(rule: &RuleMessage) -> u32 {
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Priority(preference) => Some(*preference),
            _other => None,
        })
        .unwrap_or(0)
}

fn table(rule: &RuleMessage) -> u32 {
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _other => None,
        })
        .unwrap_or(u32::from(rule.header.table))
}

fn same_rule(rule: &RuleMessage, mark: u32) -> bool {
    preference(rule) == PREFERENCE
        && table(rule) == u32::from(TABLE)
        && rule.attributes.contains(&RuleAttribute::FwMark(mark))
        && rule.attributes.contains(&RuleAttribute::FwMask(u32::MAX))
}

fn same_route(route: &RouteMessage, wanted: &RouteMessage) -> bool {
    let source = |route: &RouteMessage| {
        route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(source) => Some(source.clone()),
            _other => None,
        })
    };
    route.header.kind == wanted.header.kind
        && route.header.destination_prefix_length == 0
        && source(route) == source(wanted)
}
