//! A root with the C library and the Python of Debian 11, for the test that the agent loads in old containers.
//!
//! apt fetches the packages and checks their signatures; nothing of the system is changed.

use std::path::Path;

use anyhow::Context;

use crate::shell::{command, find, run, target_dir};

const SUITE: &str = "bullseye";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// What `python3.9` needs to start.
const PACKAGES: &[&str] =
    &["libc6", "libcrypt1", "libexpat1", "libgcc-s1", "libpython3.9-minimal", "python3.9-minimal", "zlib1g"];

/// Fetches what is not there. Without it a test is skipped by name, so that nothing depends on it.
pub(crate) fn fetch() {
    let folder = target_dir().join("tools/debian-11");
    if folder.join("usr/bin/python3.9").is_file() {
        return;
    }
    let tools = ["apt-get", "dpkg-deb"].into_iter().all(|program| find(program).is_some());
    if !tools || !Path::new(KEYRING).is_file() {
        println!("setup: no Debian 11 to try the agent in: this is no Debian");
    } else if let Err(error) = into(&folder) {
        println!("setup: no Debian 11 to try the agent in: {error:#}");
    }
}

fn into(folder: &Path) -> anyhow::Result<()> {
    let work = folder.with_extension("fetching");
    // What an earlier attempt has left.
    let _ = std::fs::remove_dir_all(&work);
    for place in ["state/lists/partial", "cache/archives/partial", "packages", "root"] {
        std::fs::create_dir_all(work.join(place))?;
    }
    let sources = work.join("sources.list");
    let source = format!("deb [arch=amd64 signed-by={KEYRING}] http://deb.debian.org/debian {SUITE} main\n");
    std::fs::write(&sources, source)?;
    let apt = |arguments: &[&str]| {
        let mut apt = command("apt-get");
        let option = |name: &str, value: &Path| format!("{name}={}", value.display());
        for option in [
            option("Dir::Etc::SourceList", &sources),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::State", &work.join("state")),
            option("Dir::State::status", Path::new("/dev/null")),
            option("Dir::Cache", &work.join("cache")),
            "APT::Architecture=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.arg("-o").arg(option);
        }
        apt.arg("--quiet=2").args(arguments).current_dir(work.join("packages"));
        apt
    };
    run(&mut apt(&["update"]))?;
    run(apt(&["download"]).args(PACKAGES))?;
    for package in std::fs::read_dir(work.join("packages"))? {
        run(command("dpkg-deb").arg("--extract").arg(package?.path()).arg(work.join("root")))?;
    }
    std::fs::rename(work.join("root"), folder).context("cannot put it in its place")?;
    Ok(std::fs::remove_dir_all(work)?)
}
