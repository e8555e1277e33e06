//! Compiles the BPF programs and generates their skeleton.

use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "bpf/stallscope.bpf.c";

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("stallscope.skel.rs");
    let mut builder = SkeletonBuilder::new();
    if let Some(clang) = clang() {
        builder.clang(clang);
    }
    let arguments = [
        "-I../schemas/wire",
        "-Ibpf",
        "-mcpu=v3",
        "-Wall",
        "-Werror",
        "-Wno-unused-function",
        "-O2",
        "-D__TARGET_ARCH_x86",
    ];
    let built = builder.source(SOURCE).clang_args(arguments).build_and_generate(&out);
    if let Err(error) = built {
        // A build script has no better way to be read than its standard error.
        eprintln!("cannot build {SOURCE}: {error:#}");
        eprintln!(
            "needed: clang 16 or newer (Debian and Ubuntu: apt-get install clang-19); cargo xtask setup installs it"
        );
        std::process::exit(1);
    }
    for watched in ["bpf", "src/probes", "../schemas/wire"] {
        println!("cargo:rerun-if-changed={watched}");
    }
}

/// The newest clang that distributions name by version; `None` leaves it to the builder, which takes `clang`.
fn clang() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    ["clang-19", "clang-20", "clang-21", "clang-18", "clang-17", "clang-16"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|candidate| candidate.is_file())
}
