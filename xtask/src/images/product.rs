//! The product's images: one static binary each, and a list of what is linked into it. Must never hold a shell, a library or a package manager.

use std::{fs, path::PathBuf, process::Command};

use super::{
    archive::{self, Image},
    sbom,
};
use crate::{
    cache::Cache,
    child::{self, Failure, Outcome},
    programs::{self, Profile},
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
    programs::product(cache, profile)?;
    for product in &PRODUCTS {
        let built = cache.binaries_of(profile.name()).join(product.package);
        let stripped = strip(cache, product, &built)?;
        let to = super::archive(cache, product.package);
        sbom::write(cache, product.package, cache.toolchain().target(), &to.with_extension("spdx.json"))?;
        super::write(cache, product.package, &image(product, stripped))?;
        let size = fs::metadata(&to)?.len();
        if size > MAX_BYTES {
            return Err(Failure::new(format!("{} has {size} bytes, at most {MAX_BYTES}", to.display())));
        }
    }
    Ok(())
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
