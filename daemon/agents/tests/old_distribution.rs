//! The agent in a process of Debian 11, whose glibc (2.31) has threads and the loader in libraries of their own: it is put
//! in, answers, and the process does not notice. Needs root and what `cargo xtask setup` fetches; else it says so and passes.

use std::io::{BufRead, BufReader, Write};
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use stallscope_cupti_image::AGENT;
use stallscope_cupti_inject::{Options, Payload, find_agent, inject};
use stallscope_cupti_wire::{Command, Header, MAGIC, MIN_SLOTS, Reason, State, VERSION, ring_bytes};

/// A thread that computes, one that waits for a lock and one that waits for a line.
const PROGRAM: &str = "
import threading, time, sys
lock = threading.Lock(); lock.acquire()
threading.Thread(target=lock.acquire, daemon=True).start()
total = 0
def add():
    global total
    while True: total += 1; time.sleep(0.001)
threading.Thread(target=add, daemon=True).start()
print('ready', flush=True)
for line in sys.stdin: print(line.strip(), total > 0, flush=True)
";

struct Old(Child);

impl Drop for Old {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn root() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")), PathBuf::from);
    let root = target.join("tools/debian-11");
    if !root.join("usr/bin/python3.9").is_file() {
        println!("skipped: no Debian 11 in {} (cargo xtask setup fetches it)", root.display());
        return None;
    }
    let may = std::process::Command::new("chroot").arg(&root).args(["/usr/bin/python3.9", "-c", ""]).output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("skipped: chroot needs root");
        return None;
    }
    Some(root)
}

#[test]
fn the_agent_works_in_debian_11() {
    let Some(root) = root() else { return };
    let mut command = std::process::Command::new("chroot");
    command.arg(&root).args(["/usr/bin/python3.9", "-c", PROGRAM]);
    let mut child = Old(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut says = BufReader::new(child.0.stdout.take().unwrap());
    let mut hears = child.0.stdin.take().unwrap();
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = child.0.id().cast_signed();
    let bytes = ring_bytes(MIN_SLOTS);
    let prepare = |ring: &OwnedFd| {
        let ring = std::fs::File::from(ring.try_clone()?);
        // It is told to collect, and has to say that there is no CUDA in this process.
        ring.write_all_at(&u64::MAX.to_ne_bytes(), offset_of!(Header, kinds) as u64)?;
        ring.write_all_at(&60_000_000_000u64.to_ne_bytes(), offset_of!(Header, heartbeat_timeout_ns) as u64)?;
        ring.write_all_at(&1u64.to_ne_bytes(), offset_of!(Header, heartbeat) as u64)?;
        ring.write_all_at(&Command::Collect.id().to_ne_bytes(), offset_of!(Header, command) as u64)?;
        ring.write_all_at(&1u32.to_ne_bytes(), offset_of!(Header, control) as u64)?;
        ring.write_all_at(&MIN_SLOTS.to_ne_bytes(), offset_of!(Header, slots) as u64)?;
        ring.write_all_at(&VERSION.to_ne_bytes(), offset_of!(Header, version) as u64)?;
        ring.write_all_at(&MAGIC.to_ne_bytes(), offset_of!(Header, magic) as u64)
    };
    let payload = Payload {
        image: AGENT,
        ring_bytes: bytes as u64,
        prepare: &prepare,
        cupti: None,
        flags: 0,
        unload: false,
    };
    let injected = inject(pid, &payload, Options::default()).unwrap();
    let ring = std::fs::File::from(injected.ring);
    let word = |at: usize| {
        let mut bytes = [0; 4];
        ring.read_exact_at(&mut bytes, at as u64).unwrap();
        u32::from_ne_bytes(bytes)
    };
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(30), "waited for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let is = |state: State| word(offset_of!(Header, state)) == state.id();
    until("the agent to refuse", &|| is(State::Refused));
    assert!(find_agent(pid).is_ok_and(|found| found.is_some()));
    assert_eq!(word(offset_of!(Header, reason)), Reason::NoCuda.id());
    line.clear();
    writeln!(hears, "well").unwrap();
    says.read_line(&mut line).unwrap();
    assert_eq!(line, "well True\n", "the process goes on");
    drop(hears);
    assert!(child.0.wait().unwrap().success(), "and ends well, with the agent in it");
}
