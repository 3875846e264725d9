//! Seals and opens TLS 1.3 records (RFC 8446 5.2), out of place: no byte is copied besides.
//!
//! Must never use a nonce twice with one key.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use super::TlsError;
use crate::limits;

/// Type, version and length.
pub(super) const HEADER: usize = 5;
/// Plaintext of one record at most.
pub(super) const FRAGMENT: usize = 16 * 1024;
/// Bytes that a record adds to its plaintext: header, inner type, tag (16 bytes in every suite of TLS 1.3 that we use).
pub(super) const OVERHEAD: usize = HEADER + 1 + TAG;
/// Longest body of a record: padding may take 256 bytes more than the plaintext.
const BODY: usize = FRAGMENT + 256;
/// Longest record.
pub(super) const LONGEST: usize = HEADER + BODY;
const TAG: usize = 16;

/// What a record holds (RFC 8446 B.1).
pub(super) mod content {
    pub(in crate::tls) const ALERT: u8 = 21;
    pub(in crate::tls) const HANDSHAKE: u8 = 22;
    pub(in crate::tls) const DATA: u8 = 23;
}

/// One direction's key.
struct Key {
    aead: LessSafeKey,
    iv: [u8; aead::NONCE_LEN],
    sequence: u64,
}

impl Key {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Key, TlsError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsError::Key),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_unspecified| TlsError::Key)?;
        let iv = iv.as_ref().try_into().map_err(|_length| TlsError::Key)?;
        Ok(Key { aead: LessSafeKey::new(key), iv, sequence })
    }

    /// RFC 8446 5.3: the sequence number, padded on the left, exclusive-or the IV.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[aead::NONCE_LEN - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The sending direction.
pub(super) struct Sealer(Key);

impl Sealer {
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Sealer, TlsError> {
        Key::new(sequence, secrets).map(Sealer)
    }

    /// Whether the key has sealed as many records as it should (RFC 8446 5.5).
    pub(super) fn is_worn(&self) -> bool {
        self.0.sequence >= limits::TLS_RECORDS_PER_KEY
    }

    /// Writes one record to the front of `out`; returns its length, `plain.len() + OVERHEAD`.
    ///
    /// # Errors
    /// [`TlsError::Key`] when `plain` is longer than [`FRAGMENT`], `out` is too short or aws-lc fails.
    pub(super) fn seal(&mut self, kind: u8, plain: &[u8], out: &mut [u8]) -> Result<usize, TlsError> {
        let body = plain.len() + 1 + TAG;
        let length = u16::try_from(body).map_err(|_too_long| TlsError::Key)?.to_be_bytes();
        if plain.len() > FRAGMENT || out.len() < HEADER + body {
            return Err(TlsError::Key);
        }
        let (header, rest) = out.split_at_mut(HEADER);
        header.copy_from_slice(&[content::DATA, 3, 3, length[0], length[1]]);
        let (sealed, end) = rest[..body].split_at_mut(plain.len());
        self.0
            .aead
            .seal_out_of_place_scatter(self.0.nonce(), Aad::from(&*header), plain, sealed, &[kind], end)
            .map_err(|_unspecified| TlsError::Key)?;
        self.0.sequence += 1;
        Ok(HEADER + body)
    }
}

/// The length of the record that `bytes` begin with, its header included; none when the header is not whole.
///
/// # Errors
/// [`TlsError::Record`] for anything but sealed records of an allowed length.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, TlsError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([header[3], header[4]]));
    // The version field says nothing (RFC 8446 5.1), and is sealed with the rest.
    if header[0] != content::DATA || !(1 + TAG..=BODY).contains(&body) {
        return Err(TlsError::Record(header[0]));
    }
    Ok(Some(HEADER + body))
}

/// Room that opening a record of this length needs.
pub(super) fn room(record: usize) -> usize {
    record.saturating_sub(HEADER + TAG)
}

/// The receiving direction.
pub(super) struct Opener(Key);

impl Opener {
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Opener, TlsError> {
        Key::new(sequence, secrets).map(Opener)
    }

    /// Opens a whole record into `out`, which has exactly [`room`] bytes. Returns what it holds, and how many bytes of it.
    ///
    /// # Errors
    /// [`TlsError::BadRecord`] when it is not what the peer sealed.
    pub(super) fn open(&mut self, record: &[u8], out: &mut [u8]) -> Result<(u8, usize), TlsError> {
        let (header, body) = record.split_at_checked(HEADER).ok_or(TlsError::BadRecord)?;
        let (sealed, tag) = body.split_at_checked(out.len()).ok_or(TlsError::BadRecord)?;
        self.0
            .aead
            .open_separate_gather(self.0.nonce(), Aad::from(header), sealed, tag, out)
            .map_err(|_unspecified| TlsError::BadRecord)?;
        self.0.sequence += 1;
        // The type is the last byte that is not padding (RFC 8446 5.4).
        let end = out.iter().rposition(|byte| *byte != 0).ok_or(TlsError::Unexpected(0))?;
        if end > FRAGMENT {
            return Err(TlsError::Record(content::DATA));
        }
        Ok((out[end], end))
    }
}
