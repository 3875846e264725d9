//! The switches inside a pod's namespace that let answers of applications inherit the capture mark.
//!
//! Must be called on a thread inside the namespace: `/proc/sys/net` shows the caller's.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
};

use rustix::{
    fs::{CWD, Mode, OFlags, StatVfsMountFlags, openat, statvfs},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};
use serde::{Deserialize, Serialize};

/// Accepted sockets take the mark of their SYN; resets and ICMP errors take the mark of what they answer.
const SWITCHES: [&str; 3] = ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"];
const DIRECTORY: &str = "/proc/sys/net";

/// A switch that we turned on, and what it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turned {
    name: String,
    before: String,
}

/// Turns on what is off. Returns what it changed.
pub(super) fn turn_on() -> io::Result<Vec<Turned>> {
    let switches = Switches::open()?;
    let mut turned = Vec::new();
    for name in SWITCHES {
        let before = match switches.read(name) {
            // A kernel without IPv6 has no such switch and needs none.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6") => continue,
            before => before?,
        };
        if before != "1" {
            switches.write(name, "1")?;
            turned.push(Turned { name: name.to_owned(), before });
        }
    }
    Ok(turned)
}

/// Turns back what [`turn_on`] changed.
pub(crate) fn restore(turned: &[Turned]) -> io::Result<()> {
    if turned.is_empty() {
        return Ok(());
    }
    let switches = Switches::open()?;
    for Turned { name, before } in turned {
        if SWITCHES.contains(&name.as_str()) {
            switches.write(name, before)?;
        }
    }
    Ok(())
}

/// The directory of switches of the caller's namespace.
struct Switches(OwnedFd);

impl Switches {
    fn open() -> io::Result<Switches> {
        let directory = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let here = openat(CWD, DIRECTORY, directory, Mode::empty())?;
        if !statvfs(DIRECTORY)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(Switches(here));
        }
        // Container runtimes cover /proc/sys with itself, read-only: a procfs of our own, mounted nowhere, is not covered.
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let own = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(Switches(openat(&own, "sys/net", directory, Mode::empty())?))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        let file = openat(&self.0, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).read_to_string(&mut text)?;
        Ok(text.trim().to_owned())
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        let file = openat(&self.0, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).write_all(value.as_bytes())
    }
}
