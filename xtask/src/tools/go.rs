//! Programs out of published Go modules. Must never build what is there in the wanted version.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::child::{self, Failure, Outcome};

/// Go itself, where its own installation instructions put it.
const USUAL_PLACE: &str = "/usr/local/go/bin/go";
/// The oldest Go that builds all of them.
const GO: (u32, u32) = (1, 26);

/// One program: its name and package.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program(pub(super) &'static str, pub(super) &'static str);

/// A Go module of ours: versions and checksums of several programs, so that what they share is compiled once.
#[derive(Debug)]
pub(super) struct Module {
    /// Where its `go.mod` is.
    pub(super) folder: &'static str,
    /// What else in there is ours.
    pub(super) sources: &'static [&'static str],
    /// For the linker.
    pub(super) flags: String,
    /// Where the programs go.
    pub(super) to: PathBuf,
}

/// What becomes of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program.
    Program,
    /// A program that runs its tests.
    Tests,
}

impl Module {
    /// Builds those that are missing.
    ///
    /// # Errors
    /// Go is missing or too old, or a build fails.
    pub(super) fn ensure(&self, kind: Kind, wanted: &[Program]) -> Outcome {
        let missing: Vec<&Program> = wanted.iter().filter(|program| !self.has(program)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let go = find()?;
        fs::create_dir_all(&self.to)?;
        for (index, program) in missing.iter().enumerate() {
            let start = Instant::now();
            let Program(name, package) = program;
            let what = format!("go build {name} ({} of {}; up to 5 minutes on two cores)", index + 1, missing.len());
            let aside = self.to.join(format!("{name}.new"));
            let mut command = Command::new(&go);
            command
                .args(if kind == Kind::Tests { &["test", "-c"][..] } else { &["build"] })
                .args(["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", &self.flags, "-o"])
                .arg(&aside)
                .arg(package)
                .current_dir(self.folder)
                // One setting for all: another one would compile every package anew. Without cgo they run in an empty image too.
                .env("CGO_ENABLED", "0")
                .env("GOWORK", "off");
            child::run(&mut command, &what, "It needs the Go module proxy (GOPROXY) and about 3 GB of memory.")?;
            fs::rename(aside, self.to.join(name))?;
            fs::write(self.stamp(program), self.wanted_stamp(program)?)?;
            child::say(format_args!("    {name} took {:.0} s", start.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    /// Beside each program, what it was built from.
    fn stamp(&self, program: &Program) -> PathBuf {
        self.to.join(format!(".{}.built-from", program.0))
    }

    fn wanted_stamp(&self, program: &Program) -> Outcome<String> {
        let mut text = String::new();
        for file in ["go.mod"].iter().chain(self.sources) {
            let path = Path::new(self.folder).join(file);
            let part =
                fs::read_to_string(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            text.push_str(&part);
        }
        Ok(format!("{text}\n{}\n{}\n", program.1, self.flags))
    }

    fn has(&self, program: &Program) -> bool {
        let built = fs::read_to_string(self.stamp(program)).ok();
        self.to.join(program.0).exists() && built.is_some() && built == self.wanted_stamp(program).ok()
    }
}

/// A Go that is new enough.
///
/// # Errors
/// There is none.
pub(super) fn find() -> Outcome<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join("go")).find(|go| go.is_file());
    let go = found.unwrap_or_else(|| USUAL_PLACE.into());
    let hint = "install Go 1.26 or newer (https://go.dev/doc/install), in the PATH or in /usr/local/go";
    let told = child::output(Command::new(&go).args(["env", "GOVERSION"])).map_err(|failure| {
        Failure::new(format!("Kubernetes is built with Go, which is not here ({failure}): {hint}"))
    })?;
    if version(&told).is_none_or(|found| found < GO) {
        return Err(Failure::new(format!("{} is {}, too old: {hint}", go.display(), told.trim())));
    }
    Ok(go)
}

/// `go1.26.8` as numbers.
fn version(told: &str) -> Option<(u32, u32)> {
    let mut numbers = told.trim().strip_prefix("go")?.split(['.', '-', ' ']);
    let minor = |text: &str| text.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok();
    Some((numbers.next()?.parse().ok()?, minor(numbers.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::{GO, version};

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert_eq!(version("go1.26.8\n"), Some((1, 26)));
        assert_eq!(version("go1.25rc1"), Some((1, 25)));
        assert!(version("go1.9.7").is_some_and(|old| old < GO));
        assert_eq!(version("devel"), None);
    }
}
