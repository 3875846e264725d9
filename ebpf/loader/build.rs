//! Embeds the kernel programs that `cargo xtask ebpf` built, or nothing: a plain `cargo build` needs no kernel toolchain.

use std::{env, fs, path::PathBuf, process::ExitCode};

const OBJECT: &str = "WEIR_EBPF_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        println!("cargo::error=OUT_DIR is not set: run this through cargo");
        return ExitCode::FAILURE;
    };
    let bytes = match env::var_os(OBJECT).filter(|path| !path.is_empty()).map(PathBuf::from) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    println!("cargo::error={OBJECT}={}: {error}; run `cargo xtask ebpf`", path.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        None => Vec::new(),
    };
    if let Err(error) = fs::write(out.join("weir-ebpf.o"), bytes) {
        println!("cargo::error=cannot write the object to {}: {error}", out.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
