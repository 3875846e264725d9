//! Child processes, progress lines and failures that say what to do. Must never hide what a child printed when it failed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the one place that talks to the developer")]

use std::{
    env, fmt,
    path::Path,
    process::{Command, Stdio},
};

/// What went wrong and what to do about it, in one text.
#[derive(Debug)]
pub(crate) struct Failure(String);

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A line of progress.
pub(crate) fn say(text: impl fmt::Display) {
    println!("{text}");
}

/// A failure, on standard error.
pub(crate) fn complain(failure: &Failure) {
    eprintln!("\nfailed: {failure}");
}

/// Goes to the top of the checkout, so that commands work from any folder in it.
///
/// # Errors
/// The checkout that this binary was built from is gone.
pub(crate) fn enter_checkout() -> Outcome {
    // Set by cargo at run time, so that a moved checkout is found too.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or_else(|| Failure::new("run this as `cargo xtask …`"))?;
    let top = Path::new(&manifest).parent().ok_or_else(|| Failure::new("xtask must lie inside the checkout"))?;
    env::set_current_dir(top).map_err(|error| Failure::new(format!("{}: {error}", top.display())))
}

/// Runs a child with its output shown, after a line that says what it is for.
///
/// # Errors
/// It cannot be started or fails; `hint` says what the developer can do.
pub(crate) fn run(command: &mut Command, what: &str, hint: &str) -> Outcome {
    say(format_args!("  · {what}"));
    let status = command
        .status()
        .map_err(|error| Failure::new(format!("{what}: cannot start {}: {error}. {hint}", program(command))))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("{what}: {} said {status}. {hint}", program(command))))
    }
}

/// Runs a child and returns what it wrote to standard output.
///
/// # Errors
/// It cannot be started or fails; its standard error is part of the text.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", program(command))))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("{} said {}: {}", program(command), output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Is this process root?
pub(crate) fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
