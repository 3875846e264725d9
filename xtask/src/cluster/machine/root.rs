//! A machine's own root: the host's as a read-only layer, changes in memory. Must never mount anything the host can see.

use std::{
    ffi::CString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};

use super::super::{
    cgroups::{self, Hierarchy},
    layout::{Machine, Place},
};
use crate::child::{Failure, Outcome};

/// All that a machine may write outside of its disk: configuration, plugins that a DaemonSet installs.
const CHANGES: &str = "size=512m,mode=755";
/// On the disk because overlayfs does not lie on overlayfs, because they are big, or because they outlive a power failure.
const ON_DISK: [&str; 4] = ["var/lib/containerd", "var/lib/kubelet", "var/lib/etcd", "var/log"];

/// Makes the root and goes into it.
///
/// # Errors
/// A mount is refused; the text names it.
pub(super) fn enter(place: &Place, machine: Machine, programs: &Path) -> Outcome {
    // What is mounted over it is seen in this mount namespace alone.
    let top = place.mount();
    fresh("tmpfs", &top, CHANGES)?;
    for name in ["up", "work", "root"] {
        fs::create_dir(top.join(name))?;
    }
    let root = top.join("root");
    let layers = format!("lowerdir=/,upperdir={0}/up,workdir={0}/work", top.display());
    fresh("overlay", &root, &layers)?;
    let hierarchies = cgroups::hierarchies()?;
    at(&root.join("dev"), |target| mount_bind_recursive("/dev", target))?;
    fresh("proc", &root.join("proc"), "")?;
    // Fresh, so that it shows this network namespace.
    fresh("sysfs", &root.join("sys"), "")?;
    let groups = Path::new("/sys/fs/cgroup");
    if hierarchies.iter().all(|hierarchy| hierarchy.mount != groups) {
        fresh("tmpfs", &inside(&root, groups), "mode=755")?;
    }
    for hierarchy in &hierarchies {
        control_groups(&root, hierarchy)?;
    }
    fresh("bpf", &root.join("sys/fs/bpf"), "")?;
    fresh("tmpfs", &root.join("run"), "mode=755")?;
    fresh("tmpfs", &root.join("tmp"), "mode=1777")?;
    for inside in ON_DISK {
        let source = place.disk(machine).join(inside);
        fs::create_dir_all(&source)?;
        bind(&source, &root.join(inside))?;
    }
    bind(place.root(), &inside(&root, place.root()))?;
    bind(programs, &inside(&root, programs))?;
    plugins(&root)?;
    pivot(&root)?;
    if let Some(only) = hierarchies.iter().find(|hierarchy| hierarchy.limits()) {
        leave_top(&only.mount)?;
    }
    Ok(())
}

/// A host path as seen from outside of the new root.
fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn at(target: &Path, mounting: impl FnOnce(&Path) -> rustix::io::Result<()>) -> Outcome {
    fs::create_dir_all(target)
        .and_then(|()| Ok(mounting(target)?))
        .map_err(|error| Failure::new(format!("cannot mount {}: {error}", target.display())))
}

fn fresh(kind: &str, target: &Path, options: &str) -> Outcome {
    let options = CString::new(options)?;
    at(target, |target| mount(kind, target, kind, MountFlags::empty(), Some(options.as_c_str())))
}

fn bind(source: &Path, target: &Path) -> Outcome {
    at(target, |target| mount_bind(source, target))
}

/// Mounted anew inside the cgroup namespace, it shows the machine's own cgroup as the top.
fn control_groups(root: &Path, hierarchy: &Hierarchy) -> Outcome {
    let target = inside(root, &hierarchy.mount);
    match &hierarchy.controllers {
        None => fresh("cgroup2", &target, ""),
        Some(controllers) => fresh("cgroup", &target, controllers),
    }
}

/// kubelet turns controllers on at the top, which the kernel allows only where no process is.
fn leave_top(mount: &Path) -> Outcome {
    let group = mount.join("init");
    fs::create_dir_all(&group)?;
    Ok(fs::write(group.join("cgroup.procs"), "0")?)
}

/// Debian keeps the plugins elsewhere than Kubernetes looks; a link each leaves room for other people's plugins.
fn plugins(root: &Path) -> Outcome {
    let folder = root.join("opt/cni/bin");
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir("/usr/lib/cni")? {
        let path = entry?.path();
        let link = folder.join(path.file_name().unwrap_or_default());
        if !link.exists() && !link.is_symlink() {
            symlink(&path, link)?;
        }
    }
    // A real node's folder holds what its own plugins need, not what this host happens to have.
    let configured = root.join("etc/cni/net.d");
    if configured.exists() {
        fs::remove_dir_all(&configured)?;
    }
    Ok(fs::create_dir_all(configured)?)
}

fn pivot(root: &Path) -> Outcome {
    std::env::set_current_dir(root)?;
    let old = Path::new("old-root");
    fs::create_dir_all(old)?;
    rustix::process::pivot_root(".", old)?;
    std::env::set_current_dir("/")?;
    unmount("/old-root", UnmountFlags::DETACH)?;
    fs::remove_dir("/old-root")?;
    // kubelet refuses `mountPropagation: Bidirectional` below a private mount.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}
