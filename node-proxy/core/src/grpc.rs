//! What of gRPC over HTTP/2 a proxy needs to know. Must never touch a message.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a content type is gRPC's (`application/grpc`, with or without `+proto` or parameters).
pub fn is_grpc(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    content_type.len() >= TYPE.len()
        && content_type[..TYPE.len()].eq_ignore_ascii_case(TYPE)
        && matches!(content_type.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests"). What is not understood is none.
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Writes `grpc-timeout` in the finest unit that eight digits hold; never longer than `left`.
pub fn set_timeout(headers: &mut HeaderMap, left: Duration) {
    const MOST: u128 = 99_999_999;
    let (count, unit) = match (left.as_micros(), left.as_millis(), u128::from(left.as_secs())) {
        (micros, ..) if micros <= MOST => (micros, 'u'),
        (_, millis, _) if millis <= MOST => (millis, 'm'),
        (.., seconds) => (seconds.min(MOST), 'S'),
    };
    if let Ok(value) = HeaderValue::from_str(&format!("{count}{unit}")) {
        headers.insert(TIMEOUT, value);
    }
}

/// `grpc-status` of trailers, or of the headers of a trailers-only response.
pub fn status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A status code of gRPC's; what is none, or missing, is UNKNOWN (gRPC's statuscodes.md).
pub fn known_code(code: Option<u32>) -> u16 {
    const UNKNOWN: u16 = 2;
    code.and_then(|code| u16::try_from(code).ok()).filter(|code| *code <= 16).unwrap_or(UNKNOWN)
}

/// Its name.
pub fn code_name(code: u16) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (value, wanted) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc; charset=x", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(value.as_bytes()), wanted, "{value}");
        }
    }

    #[test]
    fn timeouts() {
        let mut headers = HeaderMap::new();
        for (text, expected) in [
            ("100m", Some(Duration::from_millis(100))),
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0n", Some(Duration::ZERO)),
            ("100000000m", None),
            ("m", None),
            ("", None),
            ("+1m", None),
            ("1 m", None),
            ("1x", None),
        ] {
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(timeout(&headers), expected, "{text:?}");
        }
        headers.insert("grpc-timeout", HeaderValue::from_bytes(b"1\xc3\xa9").unwrap());
        assert_eq!(timeout(&headers), None);
        for (left, expected) in [
            (Duration::from_nanos(1_999), "1u"),
            (Duration::from_millis(1500), "1500000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999S"),
        ] {
            set_timeout(&mut headers, left);
            assert_eq!(headers["grpc-timeout"], expected);
            assert!(timeout(&headers).unwrap() <= left);
        }
    }

    #[test]
    fn names_of_codes() {
        let names = [Some(0), Some(5), Some(16), Some(17), Some(1 << 16), None].map(|code| code_name(known_code(code)));
        assert_eq!(names, ["OK", "NOT_FOUND", "UNAUTHENTICATED", "UNKNOWN", "UNKNOWN", "UNKNOWN"]);
    }

    #[test]
    fn statuses() {
        let mut fields = HeaderMap::new();
        assert_eq!(status(&fields), None);
        fields.insert("grpc-status", "14".parse().unwrap());
        assert_eq!(status(&fields), Some(14));
        fields.insert("grpc-status", "nonsense".parse().unwrap());
        assert_eq!(status(&fields), None);
    }
}
