//! What a request is hashed by. Must never change: nodes of different versions would send one key to different endpoints.

use std::net::IpAddr;

use http::{Request, header};

use super::{Balancer, HashBy, Kind, mix};
use crate::cookie;

/// The hash of what a request is known by: the same one goes to the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// Of all of the text.
    fn of(bytes: &[u8]) -> Key {
        Key(hash(bytes))
    }

    /// Of an address, whichever way it is written.
    fn of_address(address: IpAddr) -> Key {
        match address.to_canonical() {
            IpAddr::V4(v4) => Key::of(&v4.octets()),
            IpAddr::V6(v6) => Key::of(&v6.octets()),
        }
    }

    /// One of many, for tests.
    #[cfg(test)]
    pub(super) fn numbered(number: u64) -> Key {
        Key(mix(number))
    }

    /// Its place on a ring.
    pub(super) fn place(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// FNV-1a (Fowler, Noll, Vo), mixed: its own high bits hardly depend on the last bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

impl Balancer {
    /// What a request of the pod with this address is hashed by; none where it lacks that, or is not hashed.
    pub fn key<B>(&self, request: &Request<B>, client: IpAddr) -> Option<Key> {
        match &self.settings.kind {
            Kind::ConsistentHash(by) => by.of_request(request, client),
            _other => None,
        }
    }

    /// The same of a connection of which no request is seen.
    pub fn key_of_connection(&self, client: IpAddr) -> Option<Key> {
        match &self.settings.kind {
            Kind::ConsistentHash(HashBy::Source) => Some(Key::of_address(client)),
            _other => None,
        }
    }
}

impl HashBy {
    fn of_request<B>(&self, request: &Request<B>, client: IpAddr) -> Option<Key> {
        let text = match self {
            HashBy::Source => return Some(Key::of_address(client)),
            // HTTP/2 says it elsewhere.
            HashBy::Header(name) if name == header::HOST && request.uri().authority().is_some() => {
                return request.uri().authority().map(|authority| Key::of(authority.as_str().as_bytes()));
            }
            HashBy::Header(name) => {
                let mut values = request.headers().get_all(name).iter();
                let first = values.next()?.as_bytes();
                match values.next() {
                    None => first,
                    // Many fields are one list (RFC 9110 5.3).
                    Some(_second) => return Some(Key::of(&list(request, name))),
                }
            }
            HashBy::Cookie(name) => cookie::named(request.headers(), name).next()?,
        };
        // Who says nothing is not all the same.
        (!text.is_empty()).then(|| Key::of(text))
    }
}

fn list<B>(request: &Request<B>, name: &http::HeaderName) -> Vec<u8> {
    let values: Vec<&[u8]> = request.headers().get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    values.join(&b", "[..])
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 7));

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let built = fields
            .iter()
            .fold(Request::builder().uri("http://web/"), |built, (name, value)| built.header(*name, *value));
        built.body(()).unwrap()
    }

    fn key(by: &HashBy, fields: &[(&str, &str)]) -> Option<Key> {
        by.of_request(&request(fields), CLIENT)
    }

    #[test]
    fn headers_are_one_list_and_nothing_is_none() {
        let by = HashBy::Header(HeaderName::from_static("x-user"));
        let one = key(&by, &[("X-User", "ann")]);
        assert!(one.is_some() && one == key(&by, &[("other", "1"), ("x-user", "ann")]));
        assert_ne!(one, key(&by, &[("x-user", "bob")]));
        assert_eq!(key(&by, &[("x-user", "ann"), ("x-user", "bob")]), key(&by, &[("x-user", "ann, bob")]));
        assert_eq!((key(&by, &[]), key(&by, &[("x-user", "")])), (None, None));
        let host = HashBy::Header(header::HOST);
        assert_eq!(key(&host, &[]), Some(Key::of(b"web")), "as HTTP/2 says it");
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let by = HashBy::Cookie("id".into());
        let expected = Some(Key::of(b"7"));
        for fields in [
            &[("cookie", "id=7")][..],
            &[("cookie", "a=1; id=7; id=8")],
            &[("cookie", "idx=1;id=7")],
            &[("cookie", "a=1"), ("cookie", "id=7")],
        ] {
            assert_eq!(key(&by, fields), expected, "{fields:?}");
        }
        for fields in [&[][..], &[("cookie", "ID=7; xid=7; id; id=")], &[("id", "7")]] {
            assert_eq!(key(&by, fields), None, "{fields:?}");
        }
    }

    /// Other nodes, and other versions, come to the same ones.
    #[test]
    fn hashes_are_these_for_ever() {
        // By another implementation, in Python.
        assert_eq!((hash(b""), hash(b"ann")), (0xc381_7c01_6ba4_ff30, 0xb409_0a0b_a3f8_393c));
        assert_eq!(key(&HashBy::Source, &[]), Some(Key(hash(&[10, 1, 0, 7]))));
        assert_eq!(Key::of_address("::ffff:10.1.0.7".parse().unwrap()), Key::of_address(CLIENT));
    }
}
