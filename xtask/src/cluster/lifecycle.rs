//! Up, down, and one machine's power failure. Must never leave a cluster behind that `down` does not see.

use std::{
    env,
    fs::{self, File, OpenOptions},
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    certificates,
    kubectl::Kubectl,
    layout::{CONTROL_PLANE, MACHINES, Machine, Place},
    load, machines, status, sysctls,
};
use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
    images,
    tools::{self, kubernetes},
};

/// From the start of the machines until everything serves; two busy cores need a few times the usual 12 s.
const HEALTHY_WITHIN: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);
const ADDONS: &str = include_str!("addons.yaml");

/// Brings everything up.
///
/// # Errors
/// What is needed cannot be built, or a machine fails; the text names the log.
pub(super) fn up(cache: &Cache, place: &Place) -> Outcome {
    let _lock = Lock::take(place)?;
    tools::for_cluster(cache)?;
    images::for_cluster(cache)?;
    if status::is_healthy(cache, place)? {
        child::say("cluster: it runs already");
        status::run(cache, place, status::Format::Table)?;
        return Ok(());
    }
    let start = Instant::now();
    let had_some = place.pki("ca.crt").exists();
    if let Err(failure) = bring_up(cache, place) {
        if !had_some {
            return Err(failure);
        }
        child::say(format_args!("  · what is left of the cluster cannot be repaired, making a new one: {failure}"));
        take_down(place)?;
        bring_up(cache, place)?;
    }
    child::say(format_args!("cluster: up after {:.1} s", start.elapsed().as_secs_f64()));
    status::run(cache, place, status::Format::Table)?;
    Ok(())
}

fn bring_up(cache: &Cache, place: &Place) -> Outcome {
    let start = Instant::now();
    let passed = |what: &str| child::say(format_args!("  · {:>5.1} s  {what}", start.elapsed().as_secs_f64()));
    prepare(cache, place)?;
    passed("keys, certificates, images, links");
    let programs = kubernetes::programs(cache);
    for machine in MACHINES {
        if !machines::is_up(machine, &programs)? {
            machines::start(place, machine, &programs)?;
        }
    }
    let kubectl = Kubectl::new(place, programs.join("kubectl"));
    let wait = |trouble: &str, done: &mut dyn FnMut() -> Outcome<bool>| wait(place, &MACHINES, trouble, done);
    wait("the API server does not answer", &mut || Ok(kubectl.is_ready()))?;
    passed("API server ready");
    // Once it answers, it may still make its own first objects for a moment.
    let addons = place.root().join("conf/addons.yaml");
    fs::write(&addons, ADDONS.replace("@COREDNS@", images::COREDNS))?;
    wait("the API server does not take CoreDNS", &mut || Ok(kubectl.apply(&addons.display().to_string()).is_ok()))?;
    // A node that was killed is Ready in the API server's eyes for a while: it must run, too.
    wait("a machine does not start its daemons", &mut || all_up(&programs))?;
    wait("a node is not Ready", &mut || all_ready(&kubectl))?;
    passed("nodes Ready");
    load::into_nodes(&images::archive(cache, "apps"))?;
    wait("CoreDNS does not serve", &mut || Ok(kubectl.available("kube-system", "coredns").is_ok_and(|pods| pods > 0)))?;
    passed("CoreDNS ready");
    Ok(())
}

fn prepare(cache: &Cache, place: &Place) -> Outcome {
    place.claim()?;
    fs::create_dir_all(place.mount())?;
    sysctls::keep(place)?;
    certificates::ensure(place)?;
    fs::create_dir_all(place.images())?;
    for name in images::FOR_EVERY_NODE {
        // Moved in whole: a machine that starts meanwhile imports no half of one.
        let aside = place.images().join(format!("{name}.new"));
        fs::copy(images::archive(cache, name), &aside)?;
        fs::rename(aside, place.images().join(format!("{name}.tar")))?;
    }
    let aside = place.program().with_extension("new");
    fs::create_dir_all(place.root().join("bin"))?;
    fs::copy(env::current_exe()?, &aside)?;
    fs::rename(aside, place.program())?;
    machines::connect_host()
}

fn all_up(programs: &Path) -> Outcome<bool> {
    for machine in MACHINES {
        if !machines::is_up(machine, programs)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn all_ready(kubectl: &Kubectl) -> Outcome<bool> {
    Ok(Machine::nodes().all(|machine| kubectl.is_node_ready(machine.name)))
}

/// Waits, and notices when one of these machines ends meanwhile.
fn wait(place: &Place, machines: &[Machine], trouble: &str, mut done: impl FnMut() -> Outcome<bool>) -> Outcome {
    let deadline = Instant::now() + HEALTHY_WITHIN;
    while !done()? {
        for machine in machines {
            if machines::first_process(*machine)?.is_none() {
                let ending = machines::ending(&place.machine_log(*machine));
                return Err(Failure::new(format!("{} went down: {ending}", machine.name)));
            }
        }
        if Instant::now() > deadline {
            let logs = MACHINES.map(|machine| place.logs(machine).display().to_string()).join(" ");
            return Err(Failure::new(format!("{trouble} after {} s; logs: {logs}", HEALTHY_WITHIN.as_secs())));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Takes everything down; what is not there is no failure.
///
/// # Errors
/// Something does not die or cannot be removed.
pub(super) fn down(place: &Place) -> Outcome {
    let lock = Lock::take(place)?;
    let start = Instant::now();
    take_down(place)?;
    fs::remove_file(place.lock())?;
    drop(lock);
    child::say(format_args!("cluster: down after {:.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

fn take_down(place: &Place) -> Outcome {
    for machine in MACHINES.into_iter().rev() {
        machines::kill(machine)?;
    }
    machines::disconnect_host()?;
    sysctls::restore(place);
    place.remove()
}

/// A power failure of one machine.
///
/// # Errors
/// There is no such machine, or something of it does not die.
pub(super) fn kill_node(place: &Place, name: &str) -> Outcome {
    let machine = Machine::named(name)?;
    let _lock = Lock::take(place)?;
    machines::kill(machine)
}

/// Starts one machine on its old disk and waits until it is back.
///
/// # Errors
/// There is no such machine or no cluster, or it does not come back.
pub(super) fn restart_node(cache: &Cache, place: &Place, name: &str) -> Outcome {
    let machine = Machine::named(name)?;
    let _lock = Lock::take(place)?;
    if !place.program().exists() {
        return Err(Failure::new("there is no cluster: `cargo xtask cluster up` makes one"));
    }
    let programs = kubernetes::programs(cache);
    let kubectl = Kubectl::new(place, programs.join("kubectl"));
    machines::kill(machine)?;
    // The API server takes a dead node for a ready one for a while: only a later heartbeat is its own.
    let before = kubectl.heartbeat(name);
    machines::start(place, machine, &programs)?;
    // The others may be down on purpose.
    let wait = |trouble: &str, done: &mut dyn FnMut() -> Outcome<bool>| wait(place, &[machine], trouble, done);
    wait(&format!("{name} does not come back"), &mut || machines::is_up(machine, &programs))?;
    if machine == CONTROL_PLANE {
        return wait("the API server does not answer", &mut || Ok(kubectl.is_ready()));
    }
    wait(&format!("{name} is not Ready"), &mut || {
        let after = kubectl.heartbeat(name);
        Ok(after.is_some() && after != before && kubectl.is_node_ready(name))
    })
}

/// One command at a time. The kernel lets it go when the process ends, however that ends.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(place: &Place) -> Outcome<Self> {
        // Beside the folder, which `down` removes.
        let path = place.lock();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                child::say("cluster: another command works on it; waiting for that to end");
                flock(&file, FlockOperation::LockExclusive)?;
            }
            // A `down` that ended meanwhile has removed the file: what is locked then keeps nobody out.
            let ours = file.metadata()?.ino();
            if fs::metadata(&path).is_ok_and(|there| there.ino() == ours) {
                only_cluster(place)?;
                return Ok(Self { _file: file });
            }
        }
    }
}

/// Names and addresses are for one cluster on a host.
fn only_cluster(place: &Place) -> Outcome {
    for machine in MACHINES {
        let state = machines::marker(machine)?.unwrap_or_default().state;
        if !state.as_os_str().is_empty() && state != place.root() {
            return Err(Failure::new(format!(
                "a cluster runs here whose state is in {}: give `--state {0}`, or take that one down first",
                state.display()
            )));
        }
    }
    Ok(())
}
