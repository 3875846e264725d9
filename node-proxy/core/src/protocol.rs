//! Declared protocols of ports. Must never detect: see `detect`.

use weir_api::v1;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Not declared: the first bytes say.
    #[default]
    Detect,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Anything: bytes only.
    Opaque,
    /// TLS of the application's own.
    Tls,
}

/// Ports whose protocols are known for the server speaking first, or for speaking like HTTP without being it
/// (Linkerd's list): SMTP ×2, Galera, MySQL, PostgreSQL, Redis, Elasticsearch, memcached.
pub const DEFAULT_OPAQUE_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

impl From<v1::Protocol> for Protocol {
    fn from(protocol: v1::Protocol) -> Protocol {
        match protocol {
            v1::Protocol::Detect => Protocol::Detect,
            v1::Protocol::Http1 => Protocol::Http1,
            v1::Protocol::Http2 => Protocol::Http2,
            v1::Protocol::Opaque => Protocol::Opaque,
            v1::Protocol::Tls => Protocol::Tls,
        }
    }
}

/// Inclusive range of ports.
pub type PortRange = (u16, u16);

/// Protocols of a pod's ports; the first range that holds a port decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortProtocols(Vec<(PortRange, Protocol)>);

impl PortProtocols {
    /// From ranges, in order of precedence.
    pub fn new(ranges: Vec<(PortRange, Protocol)>) -> PortProtocols {
        PortProtocols(ranges)
    }

    /// The declared protocol of a port, or the well-known one.
    pub fn lookup(&self, port: u16) -> Protocol {
        let declared = self.0.iter().find(|((first, last), _)| (*first..=*last).contains(&port));
        match declared {
            Some((_, protocol)) => *protocol,
            None => well_known(port),
        }
    }
}

/// [`Protocol::Opaque`] for [`DEFAULT_OPAQUE_PORTS`].
pub fn well_known(port: u16) -> Protocol {
    if DEFAULT_OPAQUE_PORTS.contains(&port) { Protocol::Opaque } else { Protocol::Detect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_beats_what_is_well_known() {
        let ports = PortProtocols::new(vec![((80, 90), Protocol::Http1), ((6379, 6379), Protocol::Detect)]);
        assert_eq!(ports.lookup(85), Protocol::Http1);
        assert_eq!(ports.lookup(6379), Protocol::Detect);
        assert_eq!(ports.lookup(3306), Protocol::Opaque);
        assert_eq!(ports.lookup(91), Protocol::Detect);
    }
}
