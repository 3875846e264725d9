//! A machine's link, addresses and routes. Must never wait for ever: a host that was interrupted gives no link.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::super::layout::{HOST, MACHINE_BITS, Machine};
use crate::child::{self, Failure, Outcome};

/// The host moves the link in as soon as it sees this process.
const LINK_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Sets everything up.
///
/// # Errors
/// The link does not come or `ip` refuses.
pub(super) fn set_up(machine: Machine) -> Outcome {
    ip("link set lo up")?;
    let deadline = Instant::now() + LINK_WITHIN;
    while !Path::new("/sys/class/net/eth0").exists() {
        if Instant::now() > deadline {
            return Err(Failure::new("no eth0 was given to this machine: `cluster up` was interrupted; run it again"));
        }
        thread::sleep(LOOK_EVERY);
    }
    ip(&format!("address add {}/{MACHINE_BITS} dev eth0", machine.address))?;
    ip("link set eth0 up")?;
    ip(&format!("route add default via {HOST}"))?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    for other in Machine::nodes().filter(|other| *other != machine) {
        if let Some(pods) = other.pods {
            ip(&format!("route add {pods} via {}", other.address))?;
        }
    }
    Ok(())
}

fn ip(words: &str) -> Outcome {
    child::output(Command::new("ip").args(words.split(' '))).map(drop)
}
