//! What each test stands on: two nodes, a real holder on the first, plain servers, and a way to ask who answers.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread::JoinHandle,
    time::Duration,
};

use tempfile::TempDir;
use weir_node::handover::PodSpec;
use weir_tests::{
    daemon::Daemon,
    fabric::{Fabric, Place},
    netns::{Netns, run},
};

/// Everything here answers in milliseconds; a machine that also compiles needs more.
pub(crate) const WITHIN: Duration = Duration::from_secs(20);
/// Mount point of cgroup v2 on hybrid machines; elsewhere it is the root.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// By which nodes are told apart.
pub(crate) fn inode(netns: &Netns) -> u64 {
    fs::metadata(netns.path()).expect("namespace").ino()
}

/// The root of cgroup v2.
pub(crate) fn cgroup() -> &'static Path {
    CGROUPS.into_iter().map(Path::new).find(|path| path.join("cgroup.procs").exists()).expect("cgroup v2")
}

/// The stage. Everything on it is gone when it is dropped, whatever the test left.
pub(crate) struct Stage {
    pub(crate) fabric: Fabric,
    pub(crate) folder: TempDir,
    /// The holder's arguments for a node of Kubernetes: its proxy has a user of its own, and CNI plugins announce pods.
    is_kubernetes: bool,
    holder: Option<Daemon>,
}

/// User of the proxy on a node of Kubernetes.
pub(crate) const PROXY_UID: u32 = 2102;

impl Stage {
    /// Two nodes; a holder runs on the first.
    pub(crate) fn new() -> Stage {
        Stage::set_up(false)
    }

    /// The same, with the holder as it runs on Kubernetes.
    pub(crate) fn on_kubernetes() -> Stage {
        Stage::set_up(true)
    }

    fn set_up(is_kubernetes: bool) -> Stage {
        let folder = tempfile::tempdir().expect("temporary folder");
        // The proxy's user comes by.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("temporary folder");
        let mut stage = Stage { fabric: Fabric::new(), folder, is_kubernetes, holder: None };
        fs::create_dir(stage.pods()).expect("directory of pods");
        stage.start_holder();
        stage
    }

    fn pods(&self) -> PathBuf {
        self.folder.path().join("pods")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("holder.sock")
    }

    pub(crate) fn node(&self) -> &Netns {
        self.fabric.node(0)
    }

    /// Directory of this node's pins.
    pub(crate) fn pins(&self) -> PathBuf {
        let inode = inode(self.node());
        PathBuf::from(format!("/sys/fs/bpf/weir-{inode}"))
    }

    /// Starts a holder, and waits until it is at work.
    pub(crate) fn start_holder(&mut self) {
        let mut command = self.node().command(binary("weir-node"));
        let uid = if self.is_kubernetes { PROXY_UID } else { 0 };
        command.args(["holder", "--proxy-uid", &uid.to_string(), "--cgroup"]).arg(cgroup());
        if self.is_kubernetes {
            command.arg("--processes");
        }
        command.arg("--socket").arg(self.socket()).arg("--state").arg(self.state()).arg("--pods").arg(self.pods());
        let log = self.folder.path().join("holder.log");
        // Each holder says when it is ready; the last one's word counts.
        let _first = fs::remove_file(log);
        let mut holder = Daemon::start("holder", command, self.folder.path());
        holder.wait_for("holder ready", WITHIN);
        self.holder = Some(holder);
    }

    pub(crate) fn holder(&self) -> &Daemon {
        self.holder.as_ref().expect("a running holder")
    }

    /// SIGKILL.
    pub(crate) fn kill_holder(&mut self) {
        self.holder.take().expect("a running holder").kill();
    }

    /// SIGTERM.
    pub(crate) fn stop_holder(&mut self) {
        let ended = self.holder.take().expect("a running holder").terminate(WITHIN);
        assert!(ended.success(), "{ended}");
    }

    /// What `weir-node cleanup` says.
    pub(crate) fn cleanup(&self) -> Result<String, String> {
        let mut command = self.node().command(binary("weir-node"));
        let output = command.arg("cleanup").arg("--state").arg(self.state()).output().expect("weir-node");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// A pod on the holder's node.
    pub(crate) fn pod(&mut self, name: &str) -> Place {
        self.fabric.pod(0, name)
    }

    /// Writes a pod's file, as a CNI plugin does.
    pub(crate) fn write_pod_file(&self, name: &str, text: &str) {
        let (temporary, path) = (self.pods().join(format!("{name}.new")), self.pods().join(format!("{name}.json")));
        fs::write(&temporary, text).and_then(|()| fs::rename(temporary, path)).expect("pod file");
    }

    /// Removes a pod's file.
    pub(crate) fn remove_pod_file(&self, name: &str) {
        fs::remove_file(self.pods().join(format!("{name}.json"))).expect("pod file");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.holder.take());
        if let Err(error) = self.cleanup() {
            eprintln!("cleanup after a test: {error}");
        }
    }
}

/// A program under test.
pub(crate) fn binary(name: &str) -> PathBuf {
    let folder = env::var_os("WEIR_BINARIES").map(PathBuf::from);
    let target = env::var_os("CARGO_TARGET_DIR").map(|target| PathBuf::from(target).join("release"));
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/weir/target/release");
    let path = folder.or(target).unwrap_or_else(home).join(name);
    assert!(path.exists(), "{} is not built: run `cargo xtask test`", path.display());
    path
}

/// Asks for all of a pod, under its own name.
pub(crate) fn spec(place: &Place) -> PodSpec {
    PodSpec {
        uid: place.netns.name().to_owned(),
        netns: Some(place.netns.path().to_owned()),
        addresses: vec![place.v4, place.v6],
        ..PodSpec::default()
    }
}

/// What a server on the far side says, or how the connection failed.
pub(crate) fn ask(from: &Netns, to: SocketAddr) -> io::Result<String> {
    let mut stream = connect(from, to)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// A connection out of a namespace.
pub(crate) fn connect(from: &Netns, to: SocketAddr) -> io::Result<TcpStream> {
    from.enter(|| {
        let stream = TcpStream::connect_timeout(&to, WITHIN)?;
        stream.set_read_timeout(Some(WITHIN))?;
        Ok(stream)
    })
}

/// Connects in another way than [`ask`]; see `flavours.py`.
pub(crate) fn ask_like(from: &Netns, flavour: &str, to: SocketAddr, option: &str) -> String {
    let mut command = from.command("python3");
    command.args(["-c", include_str!("flavours.py"), flavour, &to.ip().to_string(), &to.port().to_string(), option]);
    run(&mut command)
}

/// Who answers, at which address, to whom: the words of every server and of the proxy.
pub(crate) fn words(who: &str, local: SocketAddr, peer: SocketAddr) -> String {
    format!("{who} at {}:{} for {}", local.ip().to_canonical(), local.port(), peer.ip().to_canonical())
}

/// The words expected of `who` at `address` and `port` for a client at `client`.
pub(crate) fn answer(who: &str, address: IpAddr, port: u16, client: IpAddr) -> String {
    words(who, SocketAddr::new(address, port), SocketAddr::new(client, 0))
}

/// A plain application: answers every connection with `direct` and its addresses.
pub(crate) struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> Server {
        let address = SocketAddr::new(address.into(), port);
        let listener = netns.enter(|| TcpListener::bind(address)).unwrap_or_else(|error| panic!("{address}: {error}"));
        let accepting = listener.try_clone().expect("descriptor");
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = accepting.accept() {
                let local = stream.local_addr().expect("local address");
                // A client that left does not matter.
                let _gone = stream.write_all(words("direct", local, peer).as_bytes());
            }
        });
        Server { listener, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes accept(2) with an error.
        let _shut = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

/// What `ip` with these words prints inside.
pub(crate) fn ip(netns: &Netns, words: &str) -> String {
    run(Command::new("ip").arg("-n").arg(netns.name()).args(words.split_whitespace()))
}

/// A setting under `/proc/sys/net` inside.
pub(crate) fn sysctl(netns: &Netns, name: &str) -> String {
    let path = Path::new("/proc/sys/net").join(name);
    netns.enter(move || fs::read_to_string(path)).expect("sysctl").trim().to_owned()
}

/// Rules and routes of ours inside, both families.
pub(crate) fn traces(netns: &Netns) -> Vec<String> {
    let all = ["-4 rule show", "-6 rule show", "-4 route show table all", "-6 route show table all"];
    let lines = all.map(|words| ip(netns, words)).join("\n");
    lines.lines().filter(|line| line.contains("proto 87")).map(str::to_owned).collect()
}
