//! The switches inside a pod's namespace that let answers of applications inherit the capture mark.
//!
//! Must be called on a thread inside the namespace: `/proc/sys/net` shows the caller's.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

/// Accepted sockets take the mark of their SYN; resets and ICMP errors take the mark of what they answer.
const SWITCHES: [&str; 3] = ["ipv4/tcp_fwmark_accept", "ipv4/fwmark_reflect", "ipv6/fwmark_reflect"];

/// A switch that we turned on, and what it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turned {
    name: String,
    before: String,
}

/// Turns on what is off. Returns what it changed.
pub(super) fn turn_on() -> io::Result<Vec<Turned>> {
    let mut turned = Vec::new();
    for name in SWITCHES {
        let path = Path::new("/proc/sys/net").join(name);
        let before = match fs::read_to_string(&path) {
            // A kernel without IPv6 has no such switch and needs none.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6") => continue,
            before => before?.trim().to_owned(),
        };
        if before != "1" {
            fs::write(&path, "1")?;
            turned.push(Turned { name: name.to_owned(), before });
        }
    }
    Ok(turned)
}

/// Turns back what [`turn_on`] changed.
pub(crate) fn restore(turned: &[Turned]) -> io::Result<()> {
    for Turned { name, before } in turned {
        if SWITCHES.contains(&name.as_str()) {
            fs::write(Path::new("/proc/sys/net").join(name), before)?;
        }
    }
    Ok(())
}
