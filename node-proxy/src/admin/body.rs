//! Bodies of the admin server's responses: a scrape is made, and compressed, as fast as the scraper reads.
//!
//! Must never compress ahead of the reader.

use std::{
    convert::Infallible,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use crate::telemetry::Exposition;

/// Bytes that are there already, or a scrape.
pub(super) enum Body {
    Full(Option<Bytes>),
    Scrape(Box<Exposition>),
    Gzip(Box<Exposition>, Option<GzEncoder<Vec<u8>>>),
}

impl Body {
    pub(super) fn full(bytes: Bytes) -> Body {
        Body::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    pub(super) fn scrape(scrape: Exposition, gzip: bool) -> Body {
        if gzip {
            return Body::Gzip(Box::new(scrape), Some(GzEncoder::new(Vec::new(), Compression::fast())));
        }
        Body::Scrape(Box::new(scrape))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Body::Full(bytes) => bytes.take(),
            Body::Scrape(scrape) => scrape.next().map(Bytes::from),
            Body::Gzip(scrape, encoder) => next_compressed(scrape, encoder),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None) | Body::Gzip(_, None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Body::Scrape(_) | Body::Gzip(..) => SizeHint::default(),
        }
    }
}

fn next_compressed(scrape: &mut Exposition, encoder: &mut Option<GzEncoder<Vec<u8>>>) -> Option<Bytes> {
    let mut gzip = encoder.take()?;
    for piece in scrape {
        // Writing into memory cannot fail.
        let _infallible = gzip.write_all(piece.as_bytes());
        if !gzip.get_ref().is_empty() {
            let compressed = std::mem::take(gzip.get_mut());
            *encoder = Some(gzip);
            return Some(compressed.into());
        }
    }
    gzip.finish().ok().map(Bytes::from)
}

/// Whether `accept-encoding` names gzip with a quality above 0.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0_f32));
        named && quality > 0.0
    })
}
