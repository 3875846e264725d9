//! From a pod's specification to what the kernel programs read. Must never cut a list short: too much is refused.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_ebpf_common::{
    Address, FLAG_DIRECT_PROBES, FLAG_PERMISSIVE, MAX_ADDRESSES, MAX_PORT_RANGES, MAX_SUBNETS, PROBE_DIRECT,
    PROBE_MARKED, PodSettings, PortRange, Probed, Subnet,
};

use super::{error::PodError, state::Marks};
use crate::handover::PodSpec;

/// The settings of a pod with these addresses, marks and ports of its listeners.
pub(super) fn settings(
    spec: &PodSpec,
    addresses: &[IpAddr],
    marks: Marks,
    listener_ports: [u16; 2],
) -> Result<PodSettings, PodError> {
    let mut settings = PodSettings {
        capture_mark: marks.capture,
        own_mark: marks.own,
        listener_ports,
        flags: flag(spec.permissive, FLAG_PERMISSIVE) | flag(!spec.direct_probe_ports.is_empty(), FLAG_DIRECT_PROBES),
        ..PodSettings::default()
    };
    settings.address_count =
        fill("addresses", MAX_ADDRESSES, &mut settings.addresses, addresses.iter().copied().map(address))?;
    let range = |&(first, last): &(u16, u16)| PortRange { first, last };
    settings.skip_inbound_count = fill(
        "skipped inbound port ranges",
        MAX_PORT_RANGES,
        &mut settings.skip_inbound,
        spec.skip_inbound_ports.iter().map(range),
    )?;
    settings.skip_outbound_count = fill(
        "skipped outbound port ranges",
        MAX_PORT_RANGES,
        &mut settings.skip_outbound,
        spec.skip_outbound_ports.iter().map(range),
    )?;
    settings.skip_subnet_count = fill(
        "skipped subnets",
        MAX_SUBNETS,
        &mut settings.skip_subnets,
        spec.skip_subnets.iter().copied().map(subnet),
    )?;
    Ok(settings)
}

fn flag(set: bool, flag: u32) -> u32 {
    if set { flag } else { 0 }
}

/// What becomes of connections of the node itself to a pod with these addresses.
pub(super) fn probed(spec: &PodSpec, addresses: &[IpAddr]) -> Vec<(Probed, u32)> {
    let of = |ip: &IpAddr| {
        let address = address(*ip);
        let direct = spec.direct_probe_ports.iter().map(move |port| (u32::from(*port), PROBE_DIRECT));
        let others = spec.mark_node.then_some((0, PROBE_MARKED));
        direct.chain(others).map(move |(port, how)| (Probed { address, port }, how))
    };
    addresses.iter().flat_map(of).collect()
}

fn fill<T>(
    what: &'static str,
    limit: usize,
    places: &mut [T],
    values: impl ExactSizeIterator<Item = T>,
) -> Result<u32, PodError> {
    let found = values.len();
    if found > limit {
        return Err(PodError::TooMany { what, found, limit });
    }
    for (place, value) in places.iter_mut().zip(values) {
        *place = value;
    }
    u32::try_from(found).map_err(|_beyond| PodError::TooMany { what, found, limit })
}

fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::from_octets(address.to_ipv6_mapped().octets()),
        IpAddr::V6(address) => Address::from_octets(address.octets()),
    }
}

fn subnet(subnet: IpNet) -> Subnet {
    let bits = match subnet {
        IpNet::V4(subnet) => 96 + u32::from(subnet.prefix_len()),
        IpNet::V6(subnet) => u32::from(subnet.prefix_len()),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Subnet { network: address(subnet.network()), mask: Address::from_octets(mask.to_be_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { capture: 1, own: 2 };

    fn spec(subnets: &[&str]) -> PodSpec {
        PodSpec { skip_subnets: subnets.iter().map(|text| text.parse().unwrap()).collect(), ..PodSpec::default() }
    }

    #[test]
    fn subnets_cover_exactly_themselves() {
        let settings = settings(&spec(&["10.1.0.0/16", "192.0.2.7/32", "fd00::/8"]), &[], MARKS, [1, 2]).unwrap();
        for (text, inside) in [
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("fd12::1", true),
            ("fc00::1", false),
            ("::a01:1", false),
        ] {
            assert_eq!(settings.skips_outbound(&address(text.parse().unwrap()), 80), inside, "{text}");
        }
    }

    #[test]
    fn everything_of_one_family_is_not_everything_of_the_other() {
        let v4 = settings(&spec(&["0.0.0.0/0"]), &[], MARKS, [1, 2]).unwrap();
        assert!(v4.skips_outbound(&address("8.8.8.8".parse().unwrap()), 80));
        assert!(!v4.skips_outbound(&address("2001:db8::1".parse().unwrap()), 80));
        let v6 = settings(&spec(&["::/0"]), &[], MARKS, [1, 2]).unwrap();
        assert!(v6.skips_outbound(&address("2001:db8::1".parse().unwrap()), 80));
    }

    #[test]
    fn the_nodes_connections_are_direct_where_asked_and_else_marked() {
        let spec = PodSpec { direct_probe_ports: vec![5432], mark_node: true, ..PodSpec::default() };
        let own = ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        let expected = own.map(|ip| {
            let at = |port| Probed { address: address(ip), port };
            [(at(5432), PROBE_DIRECT), (at(0), PROBE_MARKED)]
        });
        assert_eq!(probed(&spec, &own), expected.concat());
        assert!(settings(&spec, &own, MARKS, [1, 2]).unwrap().has_direct_probes());
        assert_eq!(probed(&PodSpec::default(), &own), []);
    }

    #[test]
    fn too_much_is_refused_by_name() {
        let spec = PodSpec { skip_inbound_ports: vec![(1, 1); MAX_PORT_RANGES + 1], ..PodSpec::default() };
        let error = settings(&spec, &[], MARKS, [1, 2]).unwrap_err().to_string();
        assert!(error.contains("skipped inbound port ranges") && error.contains("33"), "{error}");
    }

    #[test]
    fn own_addresses_of_both_families_are_known() {
        let own: Vec<IpAddr> = vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        let settings = settings(&PodSpec::default(), &own, MARKS, [1, 2]).unwrap();
        for ip in own {
            assert!(settings.owns(&address(ip)));
        }
        assert!(!settings.owns(&address("10.0.0.8".parse().unwrap())));
    }
}
