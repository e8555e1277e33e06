//! Targets and hosts that are hard to record: a clear message or a counted loss, and never harm to the job. Without root
//! each test says so and passes.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use stallscope_tests::cli::stallscope;
use stallscope_tests::live::hostile::{
    Bench, Job, Stuck, compile, report, states, text, tool, waits_by_stack,
};
use stallscope_tests::live::lab::{Running, json, obstacle, start, until};

macro_rules! needs_root {
    () => {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return Ok(());
        }
    };
}

/// The exit code and what was said, of a command that must not leave a capture.
fn refused(output: &Output, capture: &Path, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains(says), "{said}");
    assert!(!capture.exists(), "{} was left", capture.display());
}

/// Runs the program under test in a mount namespace of its own, after a script has changed what is mounted there.
fn elsewhere(script: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let script = format!("set -e; {script}; exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(stallscope()?).args(arguments);
    Ok(command.stdin(Stdio::null()).output()?)
}

#[test]
fn a_host_without_tracefs_is_recorded_all_the_same() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (job, capture) = (bench.job(&["threads", "3"])?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let hide = "for at in /sys/kernel/tracing /sys/kernel/debug; do mount -t tmpfs none $at; done; \
                ! test -e /sys/kernel/tracing/events && ! test -e /sys/kernel/debug/tracing";
    let output = elsewhere(hide, &["record", "--pid", &pid, "-d", "1s", "-o", text(&capture), "--json"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let missing = |probe: &&Value| probe["standing"] == "missing";
    let missing: Vec<_> = told["probes"].as_array().expect("a list").iter().filter(missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let report = report(&capture)?;
    assert!(report["devices"][0]["wall_ns"].as_u64() > Some(500_000_000), "{report:#}");
    Ok(())
}

#[test]
fn a_kernel_that_does_not_describe_its_types_is_refused_by_name() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", "1"])?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let hide = "mount -t tmpfs none /sys/kernel/btf";
    let output = elsewhere(hide, &["record", "--pid", &pid, "-d", "1s", "-o", text(&capture)])?;
    refused(&output, &capture, "does not describe its types (/sys/kernel/btf/vmlinux)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("CONFIG_DEBUG_INFO_BTF"), "what would help is said: {said}");
    assert!(job.running()?);
    Ok(())
}

/// The kernel of this machine is not locked down: what it would say is mounted in its place.
#[test]
fn a_kernel_in_confidentiality_lockdown_is_refused_by_name() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", "1"])?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let locked = |mode: &str| {
        format!("mount -t tmpfs none /sys/kernel/security; echo '{mode}' > /sys/kernel/security/lockdown")
    };
    let arguments = ["record", "--pid", &pid, "-d", "200ms", "-o", text(&capture)];
    let output = elsewhere(&locked("none integrity [confidentiality]"), &arguments)?;
    refused(&output, &capture, "lockdown is in confidentiality mode");
    assert!(job.running()?);
    let output = elsewhere(&locked("none [integrity] confidentiality"), &arguments)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A copy of the program under test where everybody may run it, and a folder where everybody may write.
fn for_everybody(bench: &Bench) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (program, open) = (bench.at("stallscope"), bench.at("open"));
    std::fs::copy(stallscope()?, &program)?;
    std::fs::create_dir(&open)?;
    let all = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    all(bench.folder(), 0o755)?;
    all(&program, 0o755)?;
    all(&open, 0o777)?;
    Ok((program, open.join("a.stall")))
}

/// A command as nobody, with what else is said to `setpriv`.
fn as_nobody(more: &[&str], program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args(more).arg(program);
    command
}

#[test]
fn users_who_may_not_are_told_what_is_missing() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (program, capture) = for_everybody(&bench)?;
    let bare = ["--inh-caps=-all", "--bounding-set=-all"];
    let record = |more: &[&str], pid: u32| -> anyhow::Result<Output> {
        let mut command = as_nobody(more, &program);
        command.args(["record", "--pid", &pid.to_string(), "-d", "300ms", "-o", text(&capture)]);
        Ok(command.stdin(Stdio::null()).output()?)
    };
    let mut roots = bench.job(&["threads", "1"])?;
    let said = format!("process {} of uid 0 is closed to us", roots.pid());
    refused(&record(&bare, roots.pid())?, &capture, &said);
    assert!(roots.running()?);

    let mut own = Job::start(as_nobody(&bare, bench.program()).args(["threads", "1"]))?;
    let output = record(&bare, own.pid())?;
    refused(&output, &capture, "not permitted to load kernel probes");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("CAP_BPF and CAP_PERFMON"), "{said}");
    assert!(own.running()?);
    Ok(())
}

/// What the message names as enough is enough, without being root: for one's own processes two capabilities, for those of
/// others two more.
#[test]
fn the_capabilities_that_are_asked_for_suffice() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (program, capture) = for_everybody(&bench)?;
    let bare = ["--inh-caps=-all", "--bounding-set=-all"];
    let own = Job::start(as_nobody(&bare, bench.program()).args(["threads", "1"]))?;
    let roots = bench.job(&["threads", "1"])?;
    let others = "+bpf,+perfmon,+sys_ptrace,+dac_read_search";
    for (caps, job) in [("+bpf,+perfmon", &own), (others, &roots)] {
        let (inherited, ambient) = (format!("--inh-caps={caps}"), format!("--ambient-caps={caps}"));
        let pid = job.pid().to_string();
        let mut command = as_nobody(&[&inherited, &ambient], &program);
        command.args(["record", "--pid", &pid, "-d", "500ms", "-o", text(&capture), "--json"]);
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{caps}: {said}");
        assert!(report(&capture)?["devices"][0]["wall_ns"].as_u64() > Some(300_000_000));
    }
    Ok(())
}

/// Starts a recording and returns once it has chosen its processes: the programs are loaded after that.
fn chosen(arguments: &[&str]) -> anyhow::Result<(Running, String)> {
    let mut recorder = start(arguments)?;
    let mut said = String::new();
    let err = recorder.0.stderr.as_mut().expect("piped");
    // Byte by byte: what follows the line is for whoever asks later.
    while !said.ends_with('\n') {
        let mut byte = [0];
        err.read_exact(&mut byte)?;
        said.push(char::from(byte[0]));
    }
    Ok((recorder, said))
}

/// What a recording that has ended said, like the output of a command.
fn ended(mut recorder: Running) -> anyhow::Result<Output> {
    let mut output = Output { status: recorder.0.wait()?, stdout: Vec::new(), stderr: Vec::new() };
    recorder.0.stdout.take().expect("piped").read_to_end(&mut output.stdout)?;
    recorder.0.stderr.take().expect("piped").read_to_end(&mut output.stderr)?;
    Ok(output)
}

#[test]
fn a_pid_that_becomes_another_process_while_attaching_is_not_recorded() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", "1"])?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let mut next = bench.job(&["taken", &pid])?;
    let (recorder, said) = chosen(&["record", "--pid", &pid, "-d", "1s", "-o", text(&capture)])?;
    assert!(said.contains(&format!("pid {pid}")), "{said}");
    job.end()?;
    next.go()?;
    assert_eq!(next.until("")?, "taken");
    let output = ended(recorder)?;
    refused(&output, &capture, &format!("pid {pid} was given to another process while attaching"));
    assert_eq!(states(pid.parse()?), "S", "the other process goes on");
    Ok(())
}

#[test]
fn a_process_that_ends_while_attaching_is_named() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", "1"])?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let (recorder, _) = chosen(&["record", "--pid", &pid, "-d", "1s", "-o", text(&capture)])?;
    job.end()?;
    let says = format!("the job ended before it could be attached to (process {pid})");
    refused(&ended(recorder)?, &capture, &says);
    Ok(())
}

/// A helper's pid that becomes a stranger's: the rank is recorded, the stranger is not.
#[test]
fn a_helper_whose_pid_becomes_another_process_is_left_out() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let capture = bench.at("a.stall");
    // A shell with the helper below it, whose end the shell waits for.
    let script = "\"$0\" threads 1 <&3 >&4 3<&- 4>&- & echo ready $!; wait; read line";
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 3<&0 4>&2; {script}")]).arg(bench.program()).stderr(Stdio::null());
    let mut shell = Job::start(&mut shell)?;
    let pid = shell.pid().to_string();
    let helper = tool("pgrep", &["-P", &pid])?.trim().to_owned();
    let mut next = bench.job(&["taken", &helper])?;
    let (recorder, _) = chosen(&["record", "--pid", &pid, "-d", "1s", "-o", text(&capture), "--only"])?;
    tool("kill", &["-KILL", &helper])?;
    until("the shell to have waited for the helper", || !Path::new(&format!("/proc/{helper}")).exists())?;
    next.go()?;
    assert_eq!(next.until("")?, "taken");
    let output = ended(recorder)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = report(&capture)?;
    assert_eq!(report["devices"][0]["threads"].as_array().map(Vec::len), Some(1), "{report:#}");
    assert!(shell.running()?);
    Ok(())
}

/// Runs a recording to its end.
fn recorded(arguments: &[&str]) -> anyhow::Result<Value> {
    json(&[&["record", "--json"], arguments].concat())
}

#[test]
fn ten_thousand_threads_are_followed_and_go_on() -> anyhow::Result<()> {
    const THREADS: u64 = 10_000;
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["threads", &THREADS.to_string()])?, bench.at("a.stall"));
    let pid = job.pid().to_string();
    let told = recorded(&["--pid", &pid, "-d", "2s", "-o", text(&capture)])?;
    assert_eq!(told["threads"], THREADS + 1);
    let report = report(&capture)?;
    let threads = report["devices"][0]["threads"].as_array().expect("a list of threads");
    assert_eq!(threads.len() as u64, THREADS + 1, "{}", report["capture"]["losses"]);
    // They go on, and end when they are told to.
    job.go()?;
    assert_eq!(job.until("ended")?, THREADS.to_string());
    job.leave()?;
    Ok(())
}

/// A child that shares its parent's memory, and does not end: the parent waits and cannot be interrupted.
#[test]
fn a_process_that_cannot_be_interrupted_is_recorded_and_what_it_waits_in_is_named() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let (mut job, capture) = (bench.job(&["vfork"])?, bench.at("a.stall"));
    job.go()?;
    job.until("begins")?;
    until("it to wait", || states(job.pid()) == "D")?;
    let pid = job.pid().to_string();
    recorded(&["--pid", &pid, "-d", "1s", "-o", text(&capture)])?;
    assert_eq!(states(job.pid()), "D", "it still waits");
    let report = report(&capture)?;
    let cause = &report["devices"][0]["causes"][0];
    assert_eq!((&cause["call"], &cause["tid"]), (&"vfork".into(), &job.pid().into()), "{cause:#}");
    assert_eq!(cause["ns"], report["devices"][0]["wall_ns"], "{cause:#}");
    Ok(())
}

/// A job that hangs, or why there can be none here.
fn stuck(bench: &Bench, what: &str, hanging: usize) -> Option<Stuck> {
    Stuck::start(bench, what, hanging).map_err(|why| println!("skipped: {why:#}")).ok()
}

/// A program that may hang is started, and ends.
fn ends(arguments: &[&str]) -> anyhow::Result<Output> {
    let mut program = start(arguments)?;
    until("it to end", || program.0.try_wait().is_ok_and(|status| status.is_some()))?;
    ended(program)
}

/// Where the file system under it is frozen, a write waits and cannot be interrupted.
#[test]
fn a_write_to_a_disk_that_hangs_is_named_with_its_file() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let Some(stuck) = stuck(&bench, "write", 1) else { return Ok(()) };
    let (pid, capture) = (stuck.job.pid(), bench.at("a.stall"));
    let output = ends(&["record", "--pid", &pid.to_string(), "-d", "1s", "-o", text(&capture), "--json"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(states(pid), "D", "it still waits");
    let report = report(&capture)?;
    let cause = &report["devices"][0]["causes"][0];
    let file = stuck.disk.folder().join("shard");
    assert_eq!((&cause["call"], &cause["object"]), (&"write".into(), &text(&file).into()), "{cause:#}");
    assert_eq!(cause["ns"], report["devices"][0]["wall_ns"], "{cause:#}");
    stuck.release()
}

/// A thread hangs in a page fault, next to one that changes how the page is mapped: the memory of the process is locked, and reading what
/// the kernel shows of it (its arguments, its environment) does not come back.
#[test]
fn a_process_that_cannot_be_looked_at_holds_up_nobody() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let Some(stuck) = stuck(&bench, "fault", 2) else { return Ok(()) };
    let (other, capture) = (bench.job(&["threads", "1"])?, bench.at("a.stall"));
    let listed = ends(&["ps", "--json"])?;
    assert!(listed.status.success());
    let pid = other.pid().to_string();
    let output = ends(&["record", "--pid", &pid, "-d", "500ms", "-o", text(&capture), "--json"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    report(&capture)?;
    stuck.release()
}

#[test]
fn a_process_that_cannot_be_looked_at_is_recorded_all_the_same() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let Some(stuck) = stuck(&bench, "fault", 2) else { return Ok(()) };
    let (pid, capture) = (stuck.job.pid(), bench.at("a.stall"));
    let output = ends(&["record", "--pid", &pid.to_string(), "-d", "2s", "-o", text(&capture), "--json"])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let note = told["notes"][0].as_str().unwrap_or_default();
    assert!(note.starts_with(&format!("process {pid} hangs in the kernel")), "{told:#}");
    assert_eq!(states(pid).matches('D').count(), 2, "it still hangs");
    let report = report(&capture)?;
    let threads = report["devices"][0]["threads"].as_array().expect("a list of threads");
    assert_eq!(threads.len(), 3, "{report:#}");
    let cause = &report["devices"][0]["causes"][0];
    assert_eq!((&cause["call"], &cause["tid"]), (&"futex".into(), &pid.into()), "{cause:#}");
    stuck.release()
}

/// Frames of the waits of a job that calls a library, recorded for a moment.
fn frames_in(job: &Job, capture: &Path) -> anyhow::Result<(String, Value)> {
    let told = recorded(&["--pid", &job.pid().to_string(), "-d", "1s", "-o", text(capture)])?;
    let stacks = waits_by_stack(capture)?;
    // Whatever it is called: the wait in the library was found, and its caller has its name.
    assert!(stacks.lines().any(|stack| stack.contains(";wait_in_library")), "{stacks}");
    Ok((stacks, told))
}

/// The new file has another function at the same place. What runs is the old one.
#[test]
fn a_library_that_was_replaced_on_disk_is_named_from_what_is_mapped() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let library = |name: &str, function: &str| {
        let flags = ["-shared", "-fPIC", &format!("-DNAME={function}")];
        compile("waiting.c", bench.folder(), name, &flags)
    };
    let (used, new) = (library("libwaits.so", "the_old_wait")?, library("new.so", "the_new_wait")?);
    let offset = |file: &Path, function: &str| -> anyhow::Result<String> {
        let listed = tool("nm", &[text(file)])?;
        let line = listed.lines().find(|line| line.ends_with(function)).expect("a symbol");
        Ok(line.split(' ').next().expect("an address").to_owned())
    };
    assert_eq!(
        offset(&used, "the_old_wait")?,
        offset(&new, "the_new_wait")?,
        "else it could not be mistaken"
    );
    let job = bench.job(&["library", text(&used)])?;
    std::fs::rename(&new, &used)?;
    let (stacks, _) = frames_in(&job, &bench.at("a.stall"))?;
    assert!(!stacks.contains("the_new_wait"), "{stacks}");
    assert!(stacks.contains(";the_old_wait (libwaits.so)"), "{stacks}");

    // Who may not use the kernel's own link to what is mapped is left with the path, where another file is now.
    let (program, capture) = for_everybody(&bench)?;
    let bare = ["--inh-caps=-all", "--bounding-set=-all"];
    let first = library("libwaits.so", "the_old_wait")?;
    let own = Job::start(as_nobody(&bare, bench.program()).args(["library", text(&first)]))?;
    std::fs::rename(library("new.so", "the_new_wait")?, &first)?;
    let caps = "+bpf,+perfmon";
    let (inherited, ambient) = (format!("--inh-caps={caps}"), format!("--ambient-caps={caps}"));
    let mut command = as_nobody(&[&inherited, &ambient], &program);
    command.args(["record", "--pid", &own.pid().to_string(), "-d", "1s", "-o", text(&capture)]);
    let output = command.stdin(Stdio::null()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stacks = waits_by_stack(&capture)?;
    assert!(!stacks.contains("the_new_wait"), "{stacks}");
    assert!(stacks.contains(" in libwaits.so"), "{stacks}");

    // And where it is gone altogether.
    std::fs::remove_file(&used)?;
    let (stacks, _) = frames_in(&job, &bench.at("b.stall"))?;
    assert!(stacks.contains(";the_old_wait (libwaits.so)"), "{stacks}");
    Ok(())
}

#[test]
fn a_stripped_library_has_addresses_and_says_so() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let library = compile("waiting.c", bench.folder(), "libwaits.so", &["-shared", "-fPIC", "-s"])?;
    let job = bench.job(&["library", text(&library)])?;
    let (stacks, told) = frames_in(&job, &bench.at("a.stall"))?;
    assert!(!stacks.contains("waits_here"), "{stacks}");
    let unnamed = stacks.lines().any(|stack| stack.contains(";wait_in_library (libwaits.so);0x"));
    assert!(unnamed && stacks.contains(" in libwaits.so"), "{stacks}");
    assert!(told["losses"]["symbol_missing"].as_u64() > Some(0), "{told:#}");
    Ok(())
}

#[test]
fn a_static_program_is_recorded_with_its_names() -> anyhow::Result<()> {
    needs_root!();
    let bench = Bench::new()?;
    let program = compile("waiting.c", bench.folder(), "waits", &["-static", "-DPROGRAM"])?;
    let capture = bench.at("a.stall");
    let job = Job::start(&mut Command::new(&program))?;
    let (stacks, told) = frames_in(&job, &capture)?;
    assert!(stacks.contains(";main (waits);wait_in_library (waits);waits_here (waits)"), "{stacks}");
    assert_eq!(told["losses"]["symbol_missing"], Value::Null, "{told:#}");
    let report = report(&capture)?;
    let cause = &report["devices"][0]["causes"][0];
    assert_eq!((&cause["call"], &cause["leaf"]), (&"nanosleep".into(), &"sleep_ns".into()), "{cause:#}");
    Ok(())
}
