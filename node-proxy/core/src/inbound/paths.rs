//! Paths that a Server's routes and its application could read differently. Must never let one past routes.

/// Whether a path has a segment that means another one (RFC 3986, 5.2.4: `.` and `..`), in any of the forms in which common applications take
/// it: percent-encoded, behind a backslash or an encoded slash, with parameters behind a semicolon. A client that speaks by the book sends none.
pub(super) fn has_dot_segments(path: &str) -> bool {
    let mut bytes = path.bytes().peekable();
    let mut segment = Segment::Empty;
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' { decoded(&mut bytes) } else { byte };
        segment = match (byte, segment) {
            (b'/' | b'\\', Segment::Dot | Segment::DotDot | Segment::Over) => return true,
            (b'/' | b'\\', _) => Segment::Empty,
            (b';', Segment::Dot | Segment::DotDot) => Segment::Over,
            (_, Segment::Over) => Segment::Over,
            (b'.', Segment::Empty) => Segment::Dot,
            (b'.', Segment::Dot) => Segment::DotDot,
            _other => Segment::Other,
        };
    }
    matches!(segment, Segment::Dot | Segment::DotDot | Segment::Over)
}

/// What of a segment was seen.
#[derive(Clone, Copy)]
enum Segment {
    Empty,
    Dot,
    DotDot,
    /// Dots, and now parameters.
    Over,
    Other,
}

/// The byte that two digits stand for; `%` itself where they are none.
fn decoded(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>) -> u8 {
    let mut ahead = bytes.clone();
    let mut digit = || ahead.next().and_then(|byte| char::from(byte).to_digit(16)).and_then(|it| u8::try_from(it).ok());
    match (digit(), digit()) {
        (Some(high), Some(low)) => {
            *bytes = ahead;
            high << 4 | low
        }
        _other => b'%',
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::has_dot_segments;

    #[test]
    fn segments_that_mean_others_are_seen() {
        for path in [
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/%2e%2E/b",
            "/a/.%2e",
            "/a\\..\\b",
            "/a%2f..%2fb",
            "/a%5C.",
            "..",
            "/a/..;x=1/b",
            "/a/.;",
        ] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "/a.b/.well-known/x",
            "/...",
            "/a/..b",
            "/.a./",
            "/a;..",
            "/%2",
            "/%zz/..%",
            "/v1.2/",
            "/a/.%2",
            "//",
        ] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    /// By the words of the documentation: decoded, cut, compared.
    fn naive(path: &str) -> bool {
        let mut plain = path.to_owned();
        for (code, byte) in
            [("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\"), ("%3b", ";")]
        {
            plain = plain.replace(code, byte);
        }
        plain.split(['/', '\\']).any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_is_what_decoding_would_find(parts in prop::collection::vec(prop::sample::select(vec![".", "/", "\\", "%2e", "%2F", "%5c", ";", "%3b", "a", "%41"]), 0..8)) {
            let path = parts.concat();
            prop_assert_eq!(has_dot_segments(&path), naive(&path), "{}", path);
        }
    }
}
