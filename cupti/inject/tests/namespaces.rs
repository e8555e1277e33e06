//! Targets in containers: another root, other numbers of processes, no /proc, no executable memory, files replaced.
//!
//! Needs root, a C compiler, unshare and pivot_root; without them the tests are skipped, with the reason printed.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use stallscope_cupti_inject::{Options, Refusal, Step, find_agent, inject};
use stallscope_cupti_wire::State;
use support::{Ring, STAY, Target, can_run, compile, inject_and_leave, payload, steps, temporary};

/// A directory with nothing but a program and what it needs.
fn root(name: &str) -> PathBuf {
    let root = temporary().join(format!("root-{name}-{}", std::process::id()));
    let program = compile("waiting.c", "waiting", &[]);
    let needed = Command::new("ldd").arg(&program).output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    for library in needed.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
        let copy = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(library, copy).unwrap();
    }
    for directory in ["old", "proc", "tmp"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy(&program, root.join("waiting")).unwrap();
    root
}

/// The program with that root, as the first process of its own PID namespace. `before` runs before the root is left
/// behind.
fn start(root: &Path, before: &str) -> Target {
    let script = format!(
        "set -e; mount --make-rprivate /; mount --bind {root} {root}; cd {root}; {before}
         pivot_root . old
         export LD_LIBRARY_PATH=/old/lib/x86_64-linux-gnu:/old/usr/lib/x86_64-linux-gnu
         /old/bin/umount -l /old 2>&- || true # not without /proc
         unset LD_LIBRARY_PATH
         exec /waiting read",
        root = root.display()
    );
    in_namespaces(&script)
}

/// What a shell script becomes that is the first process of a PID namespace, in a mount namespace of its own.
fn in_namespaces(script: &str) -> Target {
    let mut target = Target::start(
        Command::new("unshare").args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]).arg(script),
    );
    let children = std::fs::read_to_string(target.proc(&format!("task/{}/children", target.pid()))).unwrap();
    target.set_pid(children.trim().parse().unwrap());
    target.settle();
    target
}

fn has_namespaces() -> bool {
    let has = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !has {
        eprintln!("skipped: unshare does not work here");
    }
    can_run() && has
}

#[test]
fn another_root_and_other_numbers() {
    if !has_namespaces() {
        return;
    }
    let root = root("plain");
    let mut target = start(&root, "mount -t proc proc proc");
    for _ in 0..3 {
        let injected = inject_and_leave(&target).unwrap();
        assert_ne!(injected.tid.unsigned_abs(), injected.inner_tid, "the namespace has numbers of its own");
        target.wake();
    }
    let injected = inject(target.pid(), &payload(STAY), Options::default()).unwrap();
    Ring::new(&injected.ring).wait_for(State::Idle);
    let found = find_agent(target.pid()).unwrap().expect("an agent");
    assert_eq!(found.tid, injected.tid);
    Ring::new(&found.ring).leave();
    Ring::new(&injected.ring).wait_for(State::Gone);
    target.quit();
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn without_proc_a_file_takes_the_place_of_memory_for_a_moment() {
    if !has_namespaces() {
        return;
    }
    let root = root("no-proc");
    let mut target = start(&root, "");
    let (result, steps) = steps(&target, &payload(0));
    Ring::new(&result.unwrap().ring).wait_for(State::Gone);
    assert!(steps.contains(&Step::FileMade) && steps.contains(&Step::FileRemoved), "{steps:?}");
    let files = std::fs::read_dir(root.join("tmp")).unwrap().count();
    assert_eq!(files, 0, "a file is left");
    target.wake();
    target.quit();
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn without_executable_memory_a_file_takes_its_place() {
    if !has_namespaces() {
        return;
    }
    // The setting is one of the PID namespace.
    let program = compile("waiting.c", "waiting", &[]);
    let setting = "mount -t proc proc /proc && echo 2 > /proc/sys/vm/memfd_noexec";
    let mut target =
        in_namespaces(&format!("{setting} || echo unsupported; exec {} read", program.display()));
    let (result, steps) = steps(&target, &payload(0));
    Ring::new(&result.unwrap().ring).wait_for(State::Gone);
    assert!(steps.contains(&Step::FileMade) && !steps.contains(&Step::ImageMade), "{steps:?}");
    target.wake();
    target.quit();
}

#[test]
fn where_neither_is_possible_that_is_said() {
    if !has_namespaces() {
        return;
    }
    let root = root("nowhere");
    let mut target = start(&root, "mount -o remount,bind,ro .");
    let before = target.belongings();
    let refusal = inject(target.pid(), &payload(0), Options::default()).unwrap_err();
    assert!(matches!(&refusal, Refusal::NowhereToLoad { .. }), "{refusal}");
    let (threads, descriptors, _) = target.belongings();
    assert_eq!((threads, descriptors), (before.0, before.1));
    target.wake();
    target.quit();
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn libraries_that_were_replaced_on_disk_are_read_as_they_are_mapped() {
    if !has_namespaces() {
        return;
    }
    let root = root("replaced");
    let mut target = start(&root, "mount -t proc proc proc");
    let libraries = root.join("lib/x86_64-linux-gnu");
    for entry in std::fs::read_dir(&libraries).unwrap() {
        let path = entry.unwrap().path();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "something else").unwrap();
    }
    inject_and_leave(&target).unwrap();
    target.wake();
    target.quit();
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_root_that_an_old_distribution_fills() {
    // A directory in which `waiting`, built against it, runs with a glibc before 2.34: see docs/injection.md.
    let Some(root) = std::env::var_os("STALLSCOPE_OLD_ROOT").map(PathBuf::from) else {
        eprintln!("skipped: STALLSCOPE_OLD_ROOT names no directory");
        return;
    };
    if !has_namespaces() {
        return;
    }
    let mut target = start(&root, "mount -t proc proc proc");
    for _ in 0..10 {
        inject_and_leave(&target).unwrap();
        target.wake();
    }
    target.quit();
}
