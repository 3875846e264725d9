//! Frame around remembered bytes: what it is, how long, and a checksum. Must never pass on bytes that were damaged.

use flate2::Crc;

/// Magic and version; another layout gets another one.
const MAGIC: &[u8; 8] = b"WEIR\0\0\0\x01";

/// Why the bytes are not what was written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another beginning.
    #[error("not written by this version of Weir")]
    Magic,
    /// Shorter or longer than it says.
    #[error("incomplete")]
    Length,
    /// The checksum does not fit.
    #[error("damaged: the checksum does not fit")]
    Checksum,
}

/// `body` in its frame.
pub fn seal(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 20);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(&checksum(body).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The body in `bytes`.
///
/// # Errors
/// See [`FrameError`].
pub fn open(bytes: &[u8]) -> Result<&[u8], FrameError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(FrameError::Magic)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(FrameError::Length)?;
    let (sum, body) = rest.split_first_chunk::<4>().ok_or(FrameError::Length)?;
    if u64::from_be_bytes(*length) != body.len() as u64 {
        return Err(FrameError::Length);
    }
    if u32::from_be_bytes(*sum) != checksum(body) {
        return Err(FrameError::Checksum);
    }
    Ok(body)
}

fn checksum(body: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(body);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damaged_byte_is_noticed() {
        let sealed = seal(b"configuration");
        assert_eq!(open(&sealed), Ok(&b"configuration"[..]));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged).is_err(), "byte {at}");
            assert!(open(&sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
