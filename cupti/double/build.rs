//! Builds the stand-ins with frame pointers, which cargo has no setting for by package: a walk along them goes from the
//! agent through the stand-ins into the program, whatever language that is in. What NVIDIA's libraries do is another
//! question (docs/gpu/OPEN.md).

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

const LIBRARIES: [&str; 5] = ["cuda", "cudart", "cupti", "nccl", "nvml"];

fn main() {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let target_dir = PathBuf::from(variable("OUT_DIR")).join("target");
    println!("cargo::rerun-if-changed=build.rs");
    for folder in LIBRARIES.iter().chain(&["shared"]) {
        for part in ["src", "Cargo.toml"] {
            println!("cargo::rerun-if-changed={folder}/{part}");
        }
    }
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(&here).args(["build", "--lib", "--locked", "--offline", "--quiet", "--target-dir"]);
    cargo.arg(&target_dir);
    for library in LIBRARIES {
        cargo.args(["--package", &format!("stallscope-double-{library}")]);
    }
    // What the surrounding build sets for its own sake (coverage, a linter in place of the compiler) does not reach them.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Cforce-frame-pointers=yes").env_remove("RUSTFLAGS");
    cargo.env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER");
    for (name, _) in env::vars_os() {
        let foreign = ["CARGO_BUILD_", "CARGO_TARGET_", "CARGO_FEATURE_"];
        if name.to_str().is_some_and(|name| foreign.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status();
    assert!(
        status.as_ref().is_ok_and(ExitStatus::success),
        "the stand-ins could not be built ({status:?}); cargo's own messages are above. They are built by\n  {cargo:?}"
    );
    println!("cargo::rustc-env=DOUBLE_LIBRARIES={}", target_dir.join("debug").display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name} for build scripts: {error}"))
}
