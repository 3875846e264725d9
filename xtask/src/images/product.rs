//! The product's images: one static binary each, and a list of what is linked into it. Must never hold a shell, a library or a package manager.

use std::{env, fs, path::PathBuf, process::Command};

use super::{
    archive::{self, Image},
    sbom,
};
use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
    programs::Profile,
};

/// Bigger than this and something has been linked that nobody wanted.
const MAX_BYTES: u64 = 40_000_000;
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One image of the product.
struct Product {
    package: &'static str,
    title: &'static str,
    /// `uid:gid` unless the pod says otherwise: only the holder does, it loads kernel programs.
    user: &'static str,
}

const PRODUCTS: [Product; 2] = [
    Product { package: "weir-node", title: "Weir node: holder, proxy and CNI plugin", user: "2102:2102" },
    Product { package: "weir-control", title: "Weir control plane", user: "65532:65532" },
];

/// Builds binaries, lists and archives.
///
/// # Errors
/// A binary does not compile, is not static or is too big.
pub(super) fn build(cache: &Cache, profile: Profile) -> Outcome {
    let target = host()?;
    compile(cache, profile, &target)?;
    for product in &PRODUCTS {
        let built = target_folder(cache).join(&target).join(profile.name()).join(product.package);
        let stripped = strip(cache, product, &built)?;
        let to = super::archive(cache, product.package);
        sbom::write(cache, product.package, &target, &to.with_extension("spdx.json"))?;
        super::write(cache, product.package, &image(product, stripped))?;
        let size = fs::metadata(&to)?.len();
        if size > MAX_BYTES {
            return Err(Failure::new(format!("{} has {size} bytes, at most {MAX_BYTES}", to.display())));
        }
    }
    Ok(())
}

/// The triple of this machine: naming it keeps flags for the product away from build scripts and macros.
fn host() -> Outcome<String> {
    let told = child::output(Command::new("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new("`rustc -vV` names no host: is Rust installed by rustup?"))
}

fn compile(cache: &Cache, profile: Profile, target: &str) -> Outcome {
    let renamed = renamed()?;
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(renamed.iter().map(|(from, to)| format!("--remap-path-prefix={from}={to}")));
    let c: Vec<String> = renamed.iter().map(|(from, to)| format!("-ffile-prefix-map={from}={to}")).collect();
    let mut cargo = cache.cargo();
    cargo
        .args(["build", "--locked", "--profile", profile.name(), "--target", target])
        .args(PRODUCTS.iter().flat_map(|product| ["--package", product.package]))
        .env("CARGO_TARGET_DIR", target_folder(cache))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CFLAGS", c.join(" "));
    child::run(
        &mut cargo,
        "weir-node and weir-control as static binaries (10 minutes the first time, on two cores)",
        "Read the compiler's message above.",
    )
}

/// Apart from the target folder of the suites: neither waits for the other's lock.
fn target_folder(cache: &Cache) -> PathBuf {
    cache.path("static")
}

/// Messages of panics and of C's assertions name files: as everywhere, not as here. The checkout is not among them: cargo
/// names its files relative to it, and a flag with its path would make another checkout compile every dependency anew.
fn renamed() -> Outcome<Vec<(String, &'static str)>> {
    let sysroot = child::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
    let mut renamed = vec![(format!("{}/lib/rustlib/src/rust", sysroot.trim()), "/rustc")];
    renamed.extend(home.ok().map(|home| (home, "/cargo")));
    Ok(renamed)
}

fn strip(cache: &Cache, product: &Product, built: &PathBuf) -> Outcome<Vec<u8>> {
    let listed = child::output(Command::new("readelf").args(["--program-headers", "--wide"]).arg(built))?;
    if listed.lines().any(|line| line.trim_start().starts_with("INTERP")) {
        return Err(Failure::new(format!("{} asks for a loader: it is not static", built.display())));
    }
    let folder = super::folder(cache).join("bin");
    fs::create_dir_all(&folder)?;
    let stripped = folder.join(product.package);
    child::output(Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(built))?;
    let bytes = fs::read(&stripped)?;
    child::say(format_args!("  · {}: {} bytes, sha256:{}", product.package, bytes.len(), archive::sha256(&bytes)));
    Ok(bytes)
}

fn image(product: &Product, binary: Vec<u8>) -> Image {
    let path = format!("/{}", product.package);
    let mut image = Image::new(&format!("docker.io/weir/{}:{VERSION}", product.package), &[&path]);
    image.program_bytes(&path, binary);
    image.user = Some(product.user.to_owned());
    let labels =
        [("title", product.title), ("version", VERSION), ("licenses", "Apache-2.0"), ("vendor", "The Weir authors")];
    let label = |(name, value): (&str, &str)| (format!("org.opencontainers.image.{name}"), value.to_owned());
    image.labels = labels.into_iter().map(label).collect();
    image
}

#[cfg(test)]
mod tests {
    use super::{PRODUCTS, VERSION, image};

    #[test]
    fn container_files_say_the_same() {
        let files = [
            include_str!("../../../deploy/images/weir-node.Containerfile"),
            include_str!("../../../deploy/images/weir-control.Containerfile"),
        ];
        for (product, file) in PRODUCTS.iter().zip(files) {
            let image = image(product, Vec::new());
            assert!(file.contains(&format!("USER {}\n", product.user)), "{}", product.package);
            assert!(file.contains(&format!("ENTRYPOINT [\"/{}\"]", product.package)));
            assert!(file.contains(&format!(":{VERSION}")));
            for (name, value) in image.labels {
                assert!(file.contains(&format!("{name}=\"{value}\"")), "{name}");
            }
        }
    }

    #[test]
    fn nothing_of_the_product_starts_as_root() {
        for product in &PRODUCTS {
            let image = image(product, Vec::new());
            let user = image.user.expect("a user");
            assert!(!user.starts_with('0') && user.contains(':'), "{user}");
            assert_eq!(image.entrypoint, [format!("/{}", product.package)]);
            assert!(image.labels.contains_key("org.opencontainers.image.version"));
        }
    }
}
