//! Cookies of requests. Must never take a part of a name for the whole.

use http::{HeaderMap, header};

/// Values of the cookies of this name, in the order of the request (RFC 6265 4.2), in whichever of the fields (RFC 9113 8.2.3).
pub(crate) fn named<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
