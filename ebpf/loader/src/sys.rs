//! The few bpf(2) commands that the library in use lacks, or needs a type of its own for.
//!
//! Must never be called with a descriptor that is not what its name says: the kernel checks, but its errors are terse.

use std::{
    ffi::CString,
    io,
    mem::zeroed,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

// Values of the kernel's stable interface (include/uapi/linux/bpf.h).
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// `BPF_CGROUP_INET4_CONNECT`.
pub(crate) const CGROUP_CONNECT4: u32 = 10;
/// `BPF_CGROUP_INET6_CONNECT`.
pub(crate) const CGROUP_CONNECT6: u32 = 11;
/// `BPF_CGROUP_SOCK_OPS`.
pub(crate) const CGROUP_SOCK_OPS: u32 = 3;
/// `BPF_SK_LOOKUP`.
pub(crate) const SK_LOOKUP: u32 = 36;

#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct Create {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    // Newer kernels read more of the union: it must be zero.
    rest: [u64; 6],
}

#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes live through the call, their size is theirs, and what they point to is borrowed by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // Descriptors in hand are never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens what is pinned at `path`.
pub(crate) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = text(path)?;
    owned(bpf(OBJ_GET, &Object { path: path.as_ptr() as u64, fd: 0, flags: 0 })?)
}

/// Pins `object` at `path`, which must not exist.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = text(path)?;
    bpf(OBJ_PIN, &Object { path: path.as_ptr() as u64, fd: raw(object), flags: 0 }).map(drop)
}

/// Attaches `program` to `target` (a cgroup directory or a network namespace) for as long as the link lives.
pub(crate) fn link(program: BorrowedFd<'_>, target: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers, for which zero is a value.
    let mut attributes: Create = unsafe { zeroed() };
    attributes.program = raw(program);
    attributes.target = raw(target);
    attributes.attach_type = attach_type;
    owned(bpf(LINK_CREATE, &attributes)?)
}

/// Replaces the program of `link` in one step: no connection sees neither or both.
pub(crate) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_UPDATE, &Update { link: raw(link), program: raw(program), flags: 0, old_program: 0 }).map(drop)
}

/// Ends what `link` does before it returns. A link whose last name goes ends as well, but a kernel may do that later: some free the
/// inodes of bpffs after a grace period (RCU).
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &raw(link)).map(drop)
}
