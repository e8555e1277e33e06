//! Builds the agent into a folder of its own, with a profile of its own, and leaves the shared object for `include_bytes!`.
//!
//! It has no dependencies outside this repository, so nothing is fetched; and nothing that the surrounding build sets for
//! its own sake (coverage, sanitizers, a linter in place of the compiler) reaches it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let cupti = here.parent().unwrap_or(&here);
    for source in
        ["agent/src", "agent/build.rs", "agent/Cargo.toml", "agent/Cargo.lock", "abi/src", "wire/src"]
    {
        println!("cargo::rerun-if-changed={}", cupti.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    // The one target with which shared objects can be made everywhere; which C library it is for does not matter to
    // something that uses none.
    let target = format!("{}-unknown-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    let target_dir = out.join("agent");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args(["build", "--release", "--lib", "--locked", "--offline", "--quiet"])
        .args(["--target", &target])
        .arg("--manifest-path")
        .arg(cupti.join("agent/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        // With frame pointers: stacks of launches begin in it. Flags from configuration files do not count beside these.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cforce-frame-pointers=yes")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    for (name, _) in env::vars_os() {
        let foreign =
            ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_", "CARGO_FEATURE_"];
        if name.to_str().is_some_and(|name| foreign.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "the agent could not be built ({status:?}); its own messages are above. It is built by\n  {cargo:?}"
    );
    copy(&target_dir.join(&target).join("release/libstallscope_agent.so"), &out.join("agent.so"));
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name} for build scripts: {error}"))
}

fn copy(from: &Path, to: &Path) {
    if let Err(error) = std::fs::copy(from, to) {
        panic!("failed to copy {} to {}: {error}", from.display(), to.display());
    }
}
