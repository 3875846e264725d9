//! The server name in a TLS ClientHello (RFC 8446 4.1.2, RFC 6066 3). Must never read past what it was given.

use crate::limits;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SniResult {
    /// The ClientHello is not complete.
    NeedMore,
    /// The host name, lower case.
    Name(String),
    /// A ClientHello without a usable server name.
    None,
    /// Not a ClientHello.
    NotTls,
}

/// A ClientHello of more than this has no business here.
const HELLO_BYTES: usize = 8 * 1024;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    fn vector(&mut self, length_bytes: usize) -> Option<Reader<'a>> {
        let length = self.number(length_bytes)?;
        self.take(length).map(Reader)
    }
}

/// Reads the server name from a connection's first bytes, over as many records as it takes.
pub fn server_name(bytes: &[u8]) -> SniResult {
    let hello = match assemble(bytes) {
        Ok(hello) => hello,
        // A hello that needs more than fits will never be complete: waiting for it would only hold the connection.
        Err(SniResult::NeedMore) if bytes.len() >= HELLO_BYTES => return SniResult::None,
        Err(result) => return result,
    };
    find(Reader(&hello)).unwrap_or(SniResult::None)
}

/// The body of the ClientHello from its handshake records.
fn assemble(bytes: &[u8]) -> Result<Vec<u8>, SniResult> {
    let mut records = Reader(bytes);
    let mut handshake = Vec::new();
    loop {
        if let Some((kind, rest)) = handshake.split_first() {
            if *kind != 1 {
                return Err(SniResult::NotTls);
            }
            if let Some(length) = Reader(rest).number(3) {
                if length > HELLO_BYTES {
                    return Err(SniResult::NotTls);
                }
                if let Some(body) = rest.get(3..3 + length) {
                    return Ok(body.to_vec());
                }
            }
        }
        match records.0 {
            [] | [0x16] => return Err(SniResult::NeedMore),
            [0x16, 0x03, ..] => {}
            _ => return Err(SniResult::NotTls),
        }
        let Some(header) = records.take(3).and(records.number(2)) else { return Err(SniResult::NeedMore) };
        if header == 0 || header > 16 * 1024 {
            return Err(SniResult::NotTls);
        }
        let available = records.0.len().min(header);
        let Some(part) = records.take(available) else { return Err(SniResult::NeedMore) };
        handshake.extend_from_slice(part);
    }
}

fn find(mut hello: Reader<'_>) -> Option<SniResult> {
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    let mut extensions = hello.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut body = extensions.vector(2)?;
        if kind != 0 {
            continue;
        }
        let mut names = body.vector(2)?;
        while !names.0.is_empty() {
            let name_type = names.number(1)?;
            let name = names.vector(2)?.0;
            if name_type == 0
                && let Some(name) = host_name(name)
            {
                return Some(SniResult::Name(name));
            }
        }
    }
    Some(SniResult::None)
}

/// Letters, digits, hyphens, underscores and dots, without the root's dot: it ends up in labels and logs.
fn host_name(name: &[u8]) -> Option<String> {
    let usable = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.len() > limits::IDENTITY_BYTES || !name.iter().all(usable) {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('.');
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(name: Option<&str>) -> Vec<u8> {
        let mut extensions = vec![0x00, 0x2b, 0, 3, 2, 3, 4];
        if let Some(name) = name {
            let length = u16::try_from(name.len()).unwrap();
            extensions.extend([0, 0]);
            extensions.extend((length + 5).to_be_bytes());
            extensions.extend((length + 3).to_be_bytes());
            extensions.push(0);
            extensions.extend(length.to_be_bytes());
            extensions.extend(name.bytes());
        }
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend([0, 2, 0x13, 0x01]);
        body.extend([1, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut handshake = vec![1, 0];
        handshake.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        handshake.extend(body);
        handshake
    }

    fn records(handshake: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in handshake.chunks(size) {
            bytes.extend([0x16, 3, 1]);
            bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    #[test]
    fn name_is_found_in_one_record_or_in_many() {
        for size in [1, 7, 100, 4096] {
            let bytes = records(&hello(Some("Web.Shop.")), size);
            assert_eq!(server_name(&bytes), SniResult::Name("web.shop".into()));
            assert_eq!(server_name(&bytes[..bytes.len() - 1]), SniResult::NeedMore);
        }
        assert_eq!(server_name(&records(&hello(None), 4096)), SniResult::None);
        assert_eq!(server_name(&records(&hello(Some("a\0b")), 4096)), SniResult::None);
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), SniResult::NotTls);
    }

    #[test]
    fn a_name_is_a_host_name_and_never_empty() {
        for name in [".", "...", "a/b", "a\"b", "a,b"] {
            assert_eq!(server_name(&records(&hello(Some(name)), 4096)), SniResult::None, "{name:?}");
        }
    }

    #[test]
    fn what_does_not_end_is_not_waited_for() {
        let mut bytes = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0x1f, 0xff];
        bytes.resize(HELLO_BYTES - 1, 0);
        assert_eq!(server_name(&bytes), SniResult::NeedMore);
        bytes.push(0);
        assert_eq!(server_name(&bytes), SniResult::None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            server_name(&bytes);
            let mut record = vec![0x16, 3, 1, 2, 0];
            record.extend(&bytes);
            server_name(&record);
        }

        #[test]
        fn damaged_hellos_never_panic(at in 0_usize..120, byte in any::<u8>()) {
            let mut bytes = records(&hello(Some("web.shop")), 4096);
            let at = at % bytes.len();
            bytes[at] = byte;
            server_name(&bytes);
        }
    }
}
