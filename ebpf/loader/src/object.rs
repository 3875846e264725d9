//! The kernel programs, as embedded by the build script. Must never be read from a path at run time.

use crate::LoadError;

// Aligned: the ELF reader casts headers in place.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/weir-ebpf.o")));

/// The ELF object.
///
/// # Errors
/// [`LoadError::NoObject`] in a build without it.
pub fn embedded() -> Result<&'static [u8], LoadError> {
    if OBJECT.0.is_empty() { Err(LoadError::NoObject) } else { Ok(&OBJECT.0) }
}
