//! Images of programs to test with: what keeps a pod alive, and clients and servers of Debian's. Must never hold anything of the product.

use std::{fs, path::Path, process::Command};

use super::{APPS, PAUSE, archive::Image, closure};
use crate::{
    child::{self, Failure, Outcome},
    tools::kubernetes,
};

/// Debian's programs, beside busybox with all its applets.
const PROGRAMS: [&str; 10] =
    ["curl", "h2load", "ncat", "nghttpd", "nginx", "prometheus", "redis-cli", "redis-server", "socat", "wrk"];
/// The data that they open by fixed names.
const DATA: [&str; 2] = ["/etc/nginx/mime.types", "/etc/services"];
const BUSYBOX: &str = "/bin/busybox";
const USERS: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUPS: &str = "root:x:0:\nnogroup:x:65534:\n";
/// Written into by servers that run as somebody else than root.
const WRITABLE: [&str; 4] = ["/tmp", "/run", "/var/log/nginx", "/var/lib/nginx"];

/// The image that keeps a pod's namespaces.
///
/// # Errors
/// There is no C compiler with a static C library.
pub(super) fn pause() -> Outcome<Image> {
    let mut image = Image::new(PAUSE, &["/pause"]);
    compiled(&mut image, "/pause", include_str!("pause.c"))?;
    image.user = Some("65535:65535".to_owned());
    Ok(image)
}

/// The image with clients and servers: Debian's, and gRPC's out of the folder of what was built from Go modules.
///
/// # Errors
/// One of them is not installed.
pub(super) fn apps(built: &Path) -> Outcome<Image> {
    let mut image = Image::new(APPS, &["/bin/sh"]);
    for path in WRITABLE {
        image.directory(path, 0o1777);
    }
    image.text("/etc/passwd", USERS);
    image.text("/etc/group", GROUPS);
    for path in DATA {
        image.file(path, Path::new(path));
    }
    image.program("/bin/busybox", Path::new(BUSYBOX));
    for program in PROGRAMS {
        closure::add(&mut image, program)?;
    }
    for program in kubernetes::interop() {
        image.program(&format!("/bin/{program}"), &built.join(program));
    }
    // Connects before it does anything else: what a mesh must have captured by then.
    compiled(&mut image, "/bin/first-connect", include_str!("first_connect.c"))?;
    for applet in child::output(Command::new(BUSYBOX).arg("--list"))?.lines() {
        image.link(&format!("/bin/{applet}"), "busybox");
    }
    Ok(image)
}

/// Adds a static program of a few lines of C.
fn compiled(image: &mut Image, path: &str, source: &str) -> Outcome {
    let folder = tempfile::tempdir()?;
    let (code, program) = (folder.path().join("a.c"), folder.path().join("a"));
    fs::write(&code, source)?;
    let mut gcc = Command::new("gcc");
    // No build id and no name of the folder: the same source gives the same bytes.
    gcc.args(["-static", "-O2", "-s", "-Wall", "-Wl,--build-id=none", "-o"]).arg(&program).arg(&code);
    child::output(&mut gcc)
        .map_err(|failure| Failure::new(format!("{path}: {failure} (packages gcc and libc6-dev)")))?;
    image.program_bytes(path, fs::read(program)?);
    Ok(())
}
