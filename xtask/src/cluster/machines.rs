//! The machines as this host sees them. Must never take a process for a machine by a remembered id: its cgroup says what it belongs to.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    cgroups,
    layout::{BRIDGE, HOST, MACHINE_BITS, Machine, Place},
    machine::{MARKER, Marker},
};
use crate::child::{self, Failure, Outcome};

/// From `unshare` to the first process inside.
const FIRST_PROCESS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The machine's first process, as this process counts them.
///
/// # Errors
/// No cgroups are mounted.
pub(super) fn first_process(machine: Machine) -> Outcome<Option<i32>> {
    outside_pid(machine, 1)
}

/// One level down from here, with this number there. Pods are further down.
fn is_inside(status: &str, inside: i32) -> bool {
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let mut ids = ids.split_whitespace().skip(1);
    ids.next().and_then(|id| id.parse().ok()) == Some(inside) && ids.next().is_none()
}

/// What the machine says runs in it; nothing while it starts or when it is not there.
///
/// # Errors
/// No cgroups are mounted.
pub(super) fn marker(machine: Machine) -> Outcome<Option<Marker>> {
    let Some(pid) = first_process(machine)? else { return Ok(None) };
    let text = fs::read(format!("/proc/{pid}/root{MARKER}")).unwrap_or_default();
    Ok(serde_json::from_slice(&text).ok())
}

/// Does the machine run, with its link in place and all of these daemons started?
///
/// # Errors
/// No cgroups are mounted.
pub(super) fn is_up(machine: Machine, programs: &Path) -> Outcome<bool> {
    let linked = Path::new("/sys/class/net").join(machine.outside_name()).exists();
    Ok(linked && marker(machine)?.is_some_and(|marker| marker.up && marker.programs == programs))
}

/// A daemon's process as this host counts them.
///
/// # Errors
/// No cgroups are mounted.
pub(super) fn outside_pid(machine: Machine, inside: i32) -> Outcome<Option<i32>> {
    let matches = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        is_inside(&status, inside)
    };
    Ok(cgroups::processes(&machine.outside_name())?.into_iter().find(matches))
}

/// The bridge, and the routes to pods from this host. Again is fine.
///
/// # Errors
/// `ip` refuses; the addresses may be in use here.
pub(super) fn connect_host() -> Outcome {
    if !Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&format!("link add {BRIDGE} type bridge"))?;
    }
    ip(&format!("address replace {HOST}/{MACHINE_BITS} dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    for node in Machine::nodes() {
        if let Some(pods) = node.pods {
            ip(&format!("route replace {pods} via {} dev {BRIDGE}", node.address))?;
        }
    }
    Ok(())
}

/// Removes the bridge; the routes go with it, the machines' links with their namespaces.
///
/// # Errors
/// `ip` refuses.
pub(super) fn disconnect_host() -> Outcome {
    let links = Machine::nodes().chain([super::layout::CONTROL_PLANE]).map(Machine::outside_name);
    for link in links.chain([BRIDGE.to_owned()]) {
        remove_link(&link)?;
    }
    Ok(())
}

/// A machine's link goes by itself when its namespace does, also between a look and the removal.
fn remove_link(name: &str) -> Outcome {
    let path = Path::new("/sys/class/net").join(name);
    if !path.exists() {
        return Ok(());
    }
    ip(&format!("link delete {name}")).or_else(|failure| if path.exists() { Err(failure) } else { Ok(()) })
}

/// Starts a machine that does not run.
///
/// # Errors
/// It ends at once; the text names its log.
pub(super) fn start(place: &Place, machine: Machine, programs: &Path) -> Outcome {
    let name = machine.outside_name();
    // Containers of a predecessor, found there by kubelet, cost it seconds each.
    cgroups::destroy(&name)?;
    cgroups::prepare(&name)?;
    remove_link(&name)?;
    fs::create_dir_all(place.logs(machine))?;
    let log = File::create(place.machine_log(machine))?;
    let mut child = Command::new(place.program())
        .arg("cluster")
        .arg("--state")
        .arg(place.root())
        .args(["machine", machine.name, "--programs"])
        .arg(programs)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .map_err(|error| Failure::new(format!("{}: {error}", place.program().display())))?;
    let pid = wait_for_first_process(place, machine, &mut child)?;
    ip(&format!("link add {name} type veth peer name eth0 netns {pid}"))?;
    ip(&format!("link set {name} master {BRIDGE} up"))
}

fn wait_for_first_process(place: &Place, machine: Machine, child: &mut Child) -> Outcome<i32> {
    let deadline = Instant::now() + FIRST_PROCESS_WITHIN;
    loop {
        if let Some(pid) = first_process(machine)? {
            return Ok(pid);
        }
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            return Err(Failure::new(format!(
                "{} does not start: {}",
                machine.name,
                ending(&place.machine_log(machine))
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// A power failure.
///
/// # Errors
/// Something does not die.
pub(super) fn kill(machine: Machine) -> Outcome {
    cgroups::destroy(&machine.outside_name())
}

/// A command inside a machine, as if typed there.
///
/// # Errors
/// The machine does not run.
pub(super) fn inside(machine: Machine, program: &str) -> Outcome<Command> {
    let pid = first_process(machine)?
        .ok_or_else(|| Failure::new(format!("{} does not run: `cargo xtask cluster up` starts it", machine.name)))?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--mount", "--net", "--pid", "--cgroup", program]);
    Ok(command)
}

/// Where to read, and the last lines of it.
pub(super) fn ending(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("\n  ");
    format!("see {}\n  {last}", log.display())
}

fn ip(words: &str) -> Outcome {
    child::output(Command::new("ip").args(words.split(' '))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::is_inside;

    #[test]
    fn pods_and_hosts_are_no_machines() {
        assert!(is_inside("Name:\tx\nNSpid:\t4711\t1\nNSsid:\t1\n", 1));
        for other in ["NSpid:\t1\n", "NSpid:\t4711\t12\n", "NSpid:\t4711\t12\t1\n", ""] {
            assert!(!is_inside(other, 1), "{other}");
        }
    }
}
