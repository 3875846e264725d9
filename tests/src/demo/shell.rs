//! A shell in which `weir` and `weir-curl` reach the demo's mesh. Must never change files of the user.

use std::{
    env, fs,
    io::IsTerminal as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{screen::Screen, stage::Stage};
use crate::mesh::NAMESPACE;
use crate::stop::Stop;

/// Between two looks at the shell.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the user's shell until it ends, or the system asks us to stop.
///
/// # Panics
/// When neither `$SHELL` nor bash nor sh can be started.
pub(super) fn run(stage: &Stage, screen: &mut Screen, stop: &Stop) {
    let folder = commands(stage);
    advice(stage, screen);
    let shell = env::var_os("SHELL").map_or_else(|| PathBuf::from("bash"), PathBuf::from);
    let path =
        env::join_paths(std::iter::once(folder.clone()).chain(env::var_os("PATH").iter().flat_map(env::split_paths)));
    let mut command = Command::new(&shell);
    if shell.ends_with("bash") && std::io::stdin().is_terminal() {
        command.arg("--rcfile").arg(folder.join("bashrc"));
    }
    // For `weir`, and so that a prompt can show where one is.
    command.env("PATH", path.expect("PATH")).env("WEIR_NAMESPACE", NAMESPACE).env("WEIR_DEMO", stage.mesh.path(""));
    let shown = shell.display();
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("cannot start {shown}: {error}. Set SHELL to a shell"));
    while matches!(child.try_wait(), Ok(None)) {
        // Ctrl-C is the shell's own affair.
        if stop.wait(LOOK) {
            if stop.asked() != Some("Ctrl-C") {
                let _gone = child.kill();
                let _reaped = child.wait();
                break;
            }
            stop.forget();
        }
    }
}

fn advice(stage: &Stage, screen: &mut Screen) {
    screen.heading("A shell in the demo");
    let [web, redis] = ["web", "redis"].map(|service| stage.services[service].as_str());
    let lines = [
        ("weir stat", "success, rate and latency of each workload"),
        ("weir stat svc", "the same as clients see it"),
        ("weir edges", "who talks to whom, and whether it is secured"),
        ("weir identity", "certificates; with a pod's name in full"),
        ("weir endpoints web.demo.svc.cluster.local:80", "where requests can go"),
        ("weir check", "anything wrong?"),
        ("weir-curl curl-1 http://web/name", "a request from a pod: again, and another replica answers"),
        ("weir-curl wrk-1 -i http://web/error", "a failure: see it in weir stat"),
        ("ls $WEIR_DEMO/manifests", "the YAML that control watches: edit and see"),
    ];
    let width = lines.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    for (command, what) in lines {
        screen.line(&format!("{command:width$}   {what}"));
    }
    screen.line("");
    screen
        .line(&format!("web is {web}, redis is {redis}; clients go on meanwhile. `exit` ends the demo and cleans up."));
}

/// Writes the commands; returns their folder.
fn commands(stage: &Stage) -> PathBuf {
    let folder = stage.mesh.path("bin");
    fs::create_dir_all(&folder).expect("a folder");
    write(&folder.join("weir"), &weir(stage));
    write(&folder.join("weir-curl"), &curl(stage));
    let text = format!(
        "[ -f ~/.bashrc ] && . ~/.bashrc\nPATH={}:$PATH\nPS1='weir-demo \\$ '\n",
        quoted(&folder.display().to_string())
    );
    fs::write(folder.join("bashrc"), text).expect("a file");
    folder
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a script");
}

fn weir(stage: &Stage) -> String {
    let command = stage.mesh.weir(&[]);
    let mut text = String::from("#!/bin/sh\n# The weir command, connected to the demo's control.\n");
    for (name, value) in command.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        text += &format!("export {}={}\n", name.to_string_lossy(), quoted(&value.to_string_lossy()));
    }
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect();
    text + &format!("exec {} \"$@\"\n", words.join(" "))
}

fn curl(stage: &Stage) -> String {
    let mut text = String::from("#!/bin/sh\n# curl in a pod of the demo, which knows the services' names.\n");
    let names: Vec<&str> = stage.pods.iter().map(|pod| pod.name.as_str()).collect();
    text += "if [ $# -lt 2 ]; then echo 'usage: weir-curl POD [CURL OPTIONS] URL' >&2; exit 2; fi\npod=$1; shift\ncase $pod in\n";
    for pod in &stage.pods {
        text += &format!("{}) netns={} ;;\n", pod.name, quoted(&pod.place.netns.path().display().to_string()));
    }
    text += &format!("*) echo \"weir-curl: no pod $pod; there are: {}\" >&2; exit 2 ;;\nesac\n", names.join(" "));
    text += "exec nsenter --net=\"$netns\" -- curl --silent --show-error --max-time 10";
    for (name, address) in &stage.services {
        for host in [(*name).to_owned(), format!("{name}.{NAMESPACE}"), format!("{name}.{NAMESPACE}.svc.cluster.local")]
        {
            text += &format!(" --connect-to {host}::{address}:");
        }
    }
    text + " \"$@\"\n"
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
