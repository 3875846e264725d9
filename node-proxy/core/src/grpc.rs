//! What of gRPC over HTTP/2 a proxy needs to know. Must never touch a message.

use http::HeaderMap;

/// Whether a content type is gRPC's (`application/grpc`, with or without `+proto` or parameters).
pub fn is_grpc(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    content_type.len() >= TYPE.len()
        && content_type[..TYPE.len()].eq_ignore_ascii_case(TYPE)
        && matches!(content_type.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
}

/// `grpc-status` of trailers, or of the headers of a trailers-only response.
pub fn status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
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
    fn statuses() {
        let mut fields = HeaderMap::new();
        assert_eq!(status(&fields), None);
        fields.insert("grpc-status", "14".parse().unwrap());
        assert_eq!(status(&fields), Some(14));
        fields.insert("grpc-status", "nonsense".parse().unwrap());
        assert_eq!(status(&fields), None);
    }
}
