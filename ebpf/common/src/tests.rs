//! The arithmetic that the kernel programs rely on.
extern crate std;
use super::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn v4(text: &str) -> Address {
    let address: Ipv4Addr = text.parse().unwrap();
    Address::from_octets(address.to_ipv6_mapped().octets())
}

fn v6(text: &str) -> Address {
    let address: Ipv6Addr = text.parse().unwrap();
    Address::from_octets(address.octets())
}

#[test]
fn loopback_in_both_families_and_mapped() {
    for text in ["127.0.0.1", "127.255.0.9", "0.0.0.0"] {
        assert!(v4(text).is_loopback(), "{text}");
        assert!(v4(text).is_mapped(), "{text}");
    }
    assert!(v6("::1").is_loopback());
    assert!(v6("::").is_loopback());
    for text in ["128.0.0.1", "10.0.0.1", "0.0.0.1"] {
        assert!(!v4(text).is_loopback(), "{text}");
    }
    for text in ["::2", "fd00::1", "::7f00:1", "1::"] {
        assert!(!v6(text).is_loopback(), "{text}");
    }
}

#[test]
fn link_local_is_exactly_its_prefix() {
    assert!(v6("fe80::1").is_link_local_v6());
    assert!(v6("febf::1").is_link_local_v6());
    assert!(!v6("fec0::1").is_link_local_v6());
    assert!(!v6("fd80::1").is_link_local_v6());
    assert!(!v4("169.254.0.1").is_link_local_v6());
}

#[test]
fn counts_bound_what_is_looked_at() {
    let mut settings = PodSettings::default();
    settings.addresses[0] = v4("10.0.0.1");
    settings.addresses[1] = v6("fd00::1");
    assert!(!settings.owns(&v4("10.0.0.1")));
    settings.address_count = 2;
    assert!(settings.owns(&v4("10.0.0.1")));
    assert!(settings.owns(&v6("fd00::1")));
    assert!(!settings.owns(&v4("10.0.0.2")));
    assert!(!settings.owns(&v6("::")), "unused entries are zero and must not match");
    settings.address_count = u32::MAX;
    assert!(settings.owns(&v6("fd00::1")), "a count beyond the array stays inside it");
}

#[test]
fn port_ranges_include_both_ends() {
    let mut settings = PodSettings { skip_inbound_count: 1, skip_outbound_count: 2, ..PodSettings::default() };
    settings.skip_inbound[0] = PortRange { first: 80, last: 81 };
    settings.skip_outbound[1] = PortRange { first: 65_535, last: 65_535 };
    assert!(settings.skips_inbound(80) && settings.skips_inbound(81));
    assert!(!settings.skips_inbound(79) && !settings.skips_inbound(82));
    assert!(settings.skips_outbound(&v4("1.2.3.4"), 65_535));
    assert!(!settings.skips_outbound(&v4("1.2.3.4"), 80));
}

#[test]
fn subnets_of_one_family_do_not_match_the_other() {
    let mut settings = PodSettings { skip_subnet_count: 1, ..PodSettings::default() };
    settings.skip_subnets[0] = Subnet { network: v4("10.0.0.0"), mask: v6("ffff:ffff:ffff:ffff:ffff:ffff:ff00:0") };
    assert!(settings.skips_outbound(&v4("10.200.3.4"), 1));
    assert!(!settings.skips_outbound(&v4("11.0.0.1"), 1));
    assert!(!settings.skips_outbound(&v6("::a00:1"), 1));
}
