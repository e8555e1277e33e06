//! Targets that cannot be injected into: each refusal is named, and the target is as it was.
//!
//! Needs root and a C compiler; without them the tests are skipped, with the reason printed.

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stallscope_cupti_inject::{Options, Payload, Refusal, UnsafePoint, find_agent, inject};
use support::{Target, can_run, compile, inject_and_leave, payload};

fn quickly<'a>() -> Options<'a> {
    Options { safe_point_within: Duration::from_millis(300), ..Options::default() }
}

/// Every byte of code in memory is the file's.
fn code_is_pristine(target: &Target) -> bool {
    let maps = std::fs::read_to_string(target.proc("maps")).unwrap();
    let memory = std::fs::File::open(target.proc("mem")).unwrap();
    let mut checked = 0;
    for line in maps.lines().filter(|line| line.contains(" r-xp ")) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(path) = fields.get(5).filter(|path| path.starts_with('/')) else { continue };
        let (start, end) = fields[0].split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let mut present = vec![0; usize::try_from(number(end) - number(start)).unwrap()];
        memory.read_exact_at(&mut present, number(start)).unwrap();
        let file = std::fs::read(path).unwrap();
        let from = usize::try_from(number(fields[2])).unwrap();
        let mut expected = file.get(from..).unwrap().to_vec();
        expected.resize(present.len(), 0);
        if present != expected {
            return false;
        }
        checked += 1;
    }
    checked > 0
}

/// Injects into a program that waits so, expecting a refusal that leaves everything as it was.
fn refused(target: &Target) -> Refusal {
    let before = target.belongings();
    let refusal = inject(target.pid(), &payload(0), quickly()).expect_err("it was injected into");
    assert!(code_is_pristine(target), "after {refusal}");
    let (threads, descriptors, _) = target.belongings();
    assert_eq!((threads, descriptors), (before.0, before.1), "after {refusal}");
    println!("{refusal}");
    refusal
}

fn no_safe_point(mode: &str, point: UnsafePoint) {
    if !can_run() {
        return;
    }
    let target = Target::waiting(&[mode]);
    match refused(&target) {
        Refusal::NoSafePoint { tally, .. } => assert_eq!(tally.count(point), 1, "{tally}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_thread_that_waits_for_a_mutex() {
    no_safe_point("mutex", UnsafePoint::Lock);
}

#[test]
fn a_thread_that_computes() {
    no_safe_point("spin", UnsafePoint::Running);
}

#[test]
fn a_thread_in_a_signal_handler() {
    no_safe_point("handler", UnsafePoint::Handler);
}

#[test]
fn a_thread_that_a_collector_may_have_stopped() {
    no_safe_point("pause", UnsafePoint::OtherCall);
}

#[test]
fn a_thread_whose_call_the_library_did_not_make() {
    no_safe_point("own-call", UnsafePoint::OtherCode);
}

#[test]
fn a_static_program() {
    if !can_run() {
        return;
    }
    let program = compile("waiting.c", "waiting-static", &["-static"]);
    let mut target = Target::start(Command::new(program).arg("read"));
    assert!(matches!(refused(&target), Refusal::Static { .. }));
    target.wake();
    target.quit();
}

#[test]
fn a_program_with_musl() {
    if !can_run() {
        return;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inject/musl");
    let source =
        "#include <unistd.h>\nint main() { write(1, \"ready\\n\", 6); char c; return read(0, &c, 1) < 0; }";
    let compiler =
        Command::new("musl-gcc").args(["-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped()).spawn();
    let Ok(mut compiler) = compiler else {
        eprintln!("skipped: there is no musl-gcc");
        return;
    };
    std::io::Write::write_all(&mut compiler.stdin.take().unwrap(), source.as_bytes()).unwrap();
    assert!(compiler.wait().unwrap().success());
    let target = Target::start(&mut Command::new(program));
    assert!(matches!(refused(&target), Refusal::Musl { .. }));
    target.quit();
}

/// A program of 84 bytes and its code: pause, again and again.
fn program_of_32_bits() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    let mut program = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 3] {
        program.extend(half.to_le_bytes());
    }
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        program.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        program.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        program.extend(word.to_le_bytes());
    }
    program.extend(code);
    program
}

#[test]
fn a_program_of_32_bits() {
    if !can_run() {
        return;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny32-{}", std::process::id()));
    std::fs::write(&path, program_of_32_bits()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let Ok(mut child) = Command::new(&path).spawn() else {
        eprintln!("skipped: this kernel runs no programs of 32 bits");
        return;
    };
    std::thread::sleep(Duration::from_millis(20));
    let refusal = inject(child.id().try_into().unwrap(), &payload(0), quickly()).unwrap_err();
    assert!(matches!(refusal, Refusal::ThirtyTwoBit { .. }), "{refusal}");
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_filter_that_refuses_memory() {
    if !can_run() {
        return;
    }
    for mode in ["seccomp-errno", "seccomp-kill"] {
        let mut target = Target::waiting(&[mode]);
        let refusal = refused(&target);
        assert!(matches!(refusal, Refusal::Seccomp { call: "memfd_create", .. }), "{refusal}");
        target.wake();
        target.quit();
    }
}

#[test]
fn a_program_that_is_being_debugged() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    // PTRACE_SEIZE; it lets go when it ends, which it does at the end of its input.
    let traces = format!(
        "import ctypes, sys; print(ctypes.CDLL(None).ptrace(0x4206, {}, 0, 0), flush=True); sys.stdin.read()",
        target.pid()
    );
    let mut debugger = Command::new("python3")
        .args(["-c", &traces])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seized = String::new();
    BufReader::new(debugger.stdout.take().unwrap()).read_line(&mut seized).unwrap();
    assert_eq!(seized, "0\n");
    let refusal = refused(&target);
    assert!(matches!(&refusal, Refusal::OtherTracer { name, .. } if name.contains("python")), "{refusal}");
    drop(debugger.stdin.take());
    debugger.wait().unwrap();
    target.wake();
    inject_and_leave(&target).unwrap();
    target.quit();
}

#[test]
fn a_program_that_another_injection_traces() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    let pid = target.pid();
    let (traced, ready) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let injection = std::thread::spawn(move || {
        // SAFETY: the request takes numbers only.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0_usize, 0_usize) };
        traced.send(seized).unwrap();
        let _ = released.recv();
    });
    assert_eq!(ready.recv().unwrap(), 0);
    let refusal = refused(&target);
    assert!(matches!(refusal, Refusal::Busy { .. }), "{refusal}");
    release.send(()).unwrap();
    injection.join().unwrap();
    target.wake();
    inject_and_leave(&target).unwrap();
    target.quit();
}

#[test]
fn a_program_that_is_stopped() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    // SAFETY: the call takes numbers only.
    unsafe { libc::kill(target.pid(), libc::SIGSTOP) };
    target.settle();
    assert!(matches!(refused(&target), Refusal::Stopped { .. }));
    // SAFETY: the call takes numbers only.
    unsafe { libc::kill(target.pid(), libc::SIGCONT) };
    target.wake();
    target.quit();
}

#[test]
fn what_is_no_process_to_inject_into() {
    if !can_run() {
        return;
    }
    let of = |pid| inject(pid, &payload(0), quickly()).unwrap_err();
    let own = std::process::id().try_into().unwrap();
    assert!(matches!(of(own), Refusal::SameProcess { .. }));
    const NOBODY: i32 = i32::MAX;
    assert!(matches!(of(NOBODY), Refusal::Gone { .. }));
    assert!(matches!(find_agent(NOBODY), Err(Refusal::Gone { .. })));
    const KTHREADD: i32 = 2;
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        assert!(matches!(of(KTHREADD), Refusal::NotAProgram { .. }));
    }
    let (sender, tid) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: the call takes nothing.
        sender.send(unsafe { libc::gettid() }).unwrap();
        std::thread::sleep(Duration::from_secs(1));
    });
    assert!(matches!(of(tid.recv().unwrap()), Refusal::Thread { process, .. } if process == own));
    thread.join().unwrap();
    let mut ended = Command::new("true").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert!(matches!(of(ended.id().try_into().unwrap()), Refusal::Gone { .. }), "a zombie");
    ended.wait().unwrap();
}

const TARGET: &str = "STALLSCOPE_TEST_TARGET";

/// Not a test: an injector that is not root.
#[test]
#[ignore = "run by another test"]
fn injector_without_privileges() {
    let Some(pid) = std::env::var(TARGET).ok().and_then(|pid| pid.parse().ok()) else { return };
    let payload =
        Payload { image: &[], ring_bytes: 4096, prepare: &|_| Ok(()), cupti: None, flags: 0, unload: true };
    println!("{}", inject(pid, &payload, quickly()).unwrap_err());
}

#[test]
fn an_injector_without_privileges() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    const NOBODY: u32 = 65534;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["injector_without_privileges", "--exact", "--ignored", "--nocapture"])
        .env(TARGET, target.pid().to_string())
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: the test program is where others cannot read it");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let named =
        said.contains("CAP_SYS_PTRACE") && (said.contains("does not allow") || said.contains("ptrace_scope"));
    assert!(named, "{said}");
    target.wake();
    target.quit();
}

#[test]
fn a_filter_that_cannot_be_read() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["seccomp-harmless"]);
    let output = Command::new("setpriv")
        .arg("--bounding-set=-sys_admin")
        .arg(std::env::current_exe().unwrap())
        .args(["injector_without_privileges", "--exact", "--ignored", "--nocapture"])
        .env(TARGET, target.pid().to_string())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no setpriv");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("seccomp filter that cannot be read"), "{said}");
    target.wake();
    target.quit();
}

#[test]
fn an_image_that_cannot_be_loaded() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["read"]);
    inject_and_leave(&target).unwrap();
    let before = target.belongings();
    let broken = Payload { image: b"no shared object", ..payload(0) };
    let refusal = inject(target.pid(), &broken, quickly()).unwrap_err();
    assert!(matches!(&refusal, Refusal::Load { message, .. } if message.contains("stallscope")), "{refusal}");
    assert_eq!(target.belongings(), before);
    target.wake();
    target.quit();
}

#[test]
fn a_process_that_may_have_no_more_threads() {
    if !can_run() {
        return;
    }
    let mut target = Target::waiting(&["no-memory"]);
    let refusal = refused(&target);
    assert!(matches!(&refusal, Refusal::Limits { .. }), "{refusal}");
    target.wake();
    target.quit();
}
