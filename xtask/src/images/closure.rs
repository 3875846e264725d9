//! The shared libraries that a program of this machine needs. Must never guess: the machine's own loader says.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::archive::Image;
use crate::child::{self, Failure, Outcome};

/// Where Debian puts programs.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// Adds a program as `/bin/NAME`, and everything that the loader loads for it.
///
/// # Errors
/// The program or a library is missing here.
pub(super) fn add(image: &mut Image, name: &str) -> Outcome {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    let program = found.ok_or_else(|| {
        Failure::new(format!("{name} is not installed here: `cargo xtask tools` installs what the images hold"))
    })?;
    image.program(&format!("/bin/{name}"), &program);
    for library in libraries(&child::output(Command::new("ldd").arg(&program))?)? {
        image.program(&library.to_string_lossy(), &library);
    }
    Ok(())
}

/// What `ldd` lists, by the paths under which the loader opens them.
fn libraries(listed: &str) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in listed.lines().map(str::trim) {
        if line.contains("not found") {
            return Err(Failure::new(format!("a library is missing here: {line}")));
        }
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::libraries;

    #[test]
    fn libraries_and_loader_are_found() {
        let listed = "\tlinux-vdso.so.1 (0x00007)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7e)\n";
        let expected = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(listed).expect("found"), expected);
        assert!(libraries("\tstatically linked\n").expect("none").is_empty());
        assert!(libraries("\tlibx.so => not found\n").is_err());
    }
}
