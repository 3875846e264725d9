//! Tells protocols apart by a client's first bytes. Must never ask for more bytes than it takes to be sure.

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Detected {
    /// HTTP/1.x request line.
    Http1,
    /// HTTP/2 connection preface (RFC 9113 3.4).
    Http2,
    /// TLS handshake record (RFC 8446 5.1).
    Tls,
    /// None of these.
    Opaque,
}

/// Enough of the preface to exclude anything else (as Linkerd takes it).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// First bytes that are looked at. A request line that does not end within them is taken for HTTP/1 by its beginning.
const LINE_BYTES: usize = 1024;
/// Longest method we wait for; the longest registered one is `UPDATEREDIRECTREF` (17).
const METHOD_BYTES: usize = 24;

/// The protocol, or `None` when more bytes are needed. An answer never changes when more bytes come.
pub fn detect(bytes: &[u8]) -> Option<Detected> {
    let first = *bytes.first()?;
    if first == 0x16 {
        return match bytes.get(1) {
            Some(0x03) => Some(Detected::Tls),
            Some(_) => Some(Detected::Opaque),
            None => None,
        };
    }
    let common = bytes.len().min(HTTP2_PREFACE.len());
    if bytes[..common] == HTTP2_PREFACE[..common] {
        return (common == HTTP2_PREFACE.len()).then_some(Detected::Http2);
    }
    // Only what lies inside the bound counts, so that no later byte can change the answer.
    let line = request_line(&bytes[..bytes.len().min(LINE_BYTES)]);
    line.or((bytes.len() >= LINE_BYTES).then_some(Detected::Http1))
}

/// `method SP target SP HTTP/1.x` (RFC 9112 3): uppercase method, as all clients send it; others are opaque at the first byte.
fn request_line(bytes: &[u8]) -> Option<Detected> {
    // RFC 9112 2.2: an empty line before the request line is skipped.
    let skipped = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if skipped > 4 {
        return Some(Detected::Opaque);
    }
    let bytes = &bytes[skipped..];
    let method = bytes.iter().position(|byte| !(byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')));
    let space = match method {
        None if bytes.len() <= METHOD_BYTES => return None,
        None => return Some(Detected::Opaque),
        Some(at) if at == 0 || at > METHOD_BYTES || bytes[at] != b' ' => return Some(Detected::Opaque),
        Some(at) => at,
    };
    let target = &bytes[space + 1..];
    let end = target.iter().position(|byte| *byte == b' ' || byte.is_ascii_control())?;
    if end == 0 || target[end] != b' ' {
        return Some(Detected::Opaque);
    }
    let version = &target[end + 1..];
    let wanted = b"HTTP/1.";
    let common = version.len().min(wanted.len());
    if version[..common] != wanted[..common] {
        return Some(Detected::Opaque);
    }
    match version.get(wanted.len()) {
        None => None,
        Some(digit) if digit.is_ascii_digit() => Some(Detected::Http1),
        Some(_) => Some(Detected::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table() {
        for (bytes, wanted) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Detected::Http1)),
            (b"\r\nGET / HTTP/1.0\r\n", Some(Detected::Http1)),
            (b"M-SEARCH * HTTP/1.1", Some(Detected::Http1)),
            (b"GET /", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Some(Detected::Http2)),
            (b"PRI * HT", None),
            (b"PRINT all\n", Some(Detected::Opaque)),
            (b"\x16\x03\x01", Some(Detected::Tls)),
            (b"\x16", None),
            (b"\x16\x16", Some(Detected::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Detected::Opaque)),
            (b"SSH-2.0-OpenSSH_9\r\n", Some(Detected::Opaque)),
            (b"EHLO me\r\n", Some(Detected::Opaque)),
            (b"SET a b\r\n", Some(Detected::Opaque)),
            (b"\0\0\0\x08", Some(Detected::Opaque)),
            (b"", None),
        ] {
            assert_eq!(detect(bytes), wanted, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn an_answer_never_changes_when_more_bytes_come(bytes in proptest::collection::vec(any::<u8>(), 0..200), http in any::<bool>()) {
            let mut all = if http { b"GET /path HTTP/1.1\r\n".to_vec() } else { Vec::new() };
            all.extend(bytes);
            let mut answer = None;
            for length in 0..=all.len() {
                let now = detect(&all[..length]);
                if answer.is_some() {
                    prop_assert_eq!(now, answer);
                }
                answer = now;
            }
        }

        #[test]
        fn nor_in_a_line_of_any_length(target in 0_usize..1100, end in any::<u8>(), rest in "[ -~]{0,20}") {
            let mut all = b"GET /".to_vec();
            all.resize(5 + target, b'a');
            all.push(end);
            all.extend(rest.bytes());
            let mut answer = None;
            for length in 0..=all.len() {
                let now = detect(&all[..length]);
                if answer.is_some() {
                    prop_assert_eq!(now, answer);
                }
                answer = now;
                prop_assert!(now.is_some() || length < LINE_BYTES, "still waiting at {}", length);
            }
        }

        #[test]
        fn never_waits_for_more_than_its_bound(byte in any::<u8>()) {
            prop_assert!(detect(&vec![byte; 1200]).is_some());
        }
    }
}
