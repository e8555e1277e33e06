//! What descriptors stand for, and what was read from and written to them.

use std::fs;
use std::process::Command;

use stallscope_ebpf::Event;
use stallscope_schemas::record::ObjectKind;
use stallscope_schemas::wire::wait_flag;

use crate::recording::{Recording, child, record};

const BEGAN_BEFORE: u16 = wait_flag::WAIT_BEGAN_BEFORE;

/// Reads, bytes read, writes, bytes written of one object by all threads.
fn sums(recording: &Recording, object: u64) -> (u64, u64, u64, u64) {
    let of = recording.events.iter().filter_map(|event| match event {
        Event::FileIo(io) if io.object == object => Some(io),
        _ => None,
    });
    of.fold((0, 0, 0, 0), |sum, io| {
        (sum.0 + io.reads, sum.1 + io.read_bytes, sum.2 + io.writes, sum.3 + io.written_bytes)
    })
}

fn only(recording: &Recording, name: &str) -> u64 {
    let ids = recording.named(name);
    assert_eq!(ids.len(), 1, "{name} is one object");
    ids[0]
}

#[test]
fn reads_of_a_file_are_counted_to_the_byte_under_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shard-0017");
    fs::write(&path, vec![7; 1 << 20]).expect("a file");
    let path = path.to_str().expect("text");
    let Some(mut command) = child(&["read", path, "100", "4001"]) else { return };
    let recording = record(&mut command);
    let file = only(&recording, path);
    assert_eq!(recording.object(file).kind, ObjectKind::File);
    assert_eq!(sums(&recording, file), (101, 100 * 4001 + 7, 0, 0));
}

#[test]
fn bytes_through_a_pipe_are_the_same_on_both_ends() {
    let Some(mut command) = child(&["pipe", "10"]) else { return };
    let recording = record(&mut command);
    let reader = recording.task(recording.one("reader"));
    let pipe =
        recording.waits(reader).into_iter().find(|w| w.wanted == 1 && w.call == 0).expect("a wait").object;
    assert_eq!(sums(&recording, pipe), (10, 10, 10, 10));
}

#[test]
fn objects_of_many_kinds_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("text");
    let Some(mut command) = child(&["objects", folder]) else { return };
    let recording = record(&mut command);
    let ids = recording.named(&format!("unix:{folder}/socket"));
    let mut seen: Vec<_> = ids.iter().map(|id| sums(&recording, *id)).collect();
    seen.retain(|sums| *sums != (0, 0, 0, 0));
    seen.sort_unstable();
    assert_eq!(
        seen,
        [(0, 0, 2, 12), (2, 2, 0, 0)],
        "the accepted end takes 2 and 10 bytes, the client reads two"
    );
    let gone = only(&recording, &format!("{folder}/gone (deleted)"));
    assert_eq!(sums(&recording, gone), (1, 10, 1, 10), "sendfile reads what was written");
    let waited = |call: i32, kind: ObjectKind| {
        let waits = recording.waits_in(1, call);
        let found =
            waits.into_iter().find(|w| w.object_kind == kind.id() && w.head.flags & BEGAN_BEFORE == 0);
        let wait = found.unwrap_or_else(|| panic!("no wait in call {call} for {kind:?}"));
        (recording.object(wait.object).text, u64::try_from(wait.fd).expect("a descriptor"))
    };
    assert_eq!(waited(0, ObjectKind::Timer).0, "timerfd");
    assert_eq!(waited(232, ObjectKind::Epoll).0, "epoll");
    // C libraries poll by one of two calls.
    let polled = waited(7, ObjectKind::UnixSocket);
    assert_eq!(polled, (format!("unix:{folder}/socket"), recording.one("polled")));
}

/// The process sees a file system that nobody else sees.
#[test]
fn paths_are_those_of_the_processes_own_mounts() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("text");
    let path = format!("{folder}/in/data");
    let Some(child) = child(&["read", &path, "2", "50"]) else { return };
    let mut command = Command::new("unshare");
    let script = r#"mkdir "$1/in" && mount -t tmpfs none "$1/in" && head -c 100 /dev/zero > "$1/in/data" && shift && exec "$@""#;
    command.args(["-m", "sh", "-c", script, "sh", folder]).arg(child.get_program()).args(child.get_args());
    let recording = record(&mut command);
    let file = only(&recording, &path);
    assert_eq!(sums(&recording, file), (3, 107, 0, 0));
}

#[test]
fn a_long_path_keeps_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut deep = folder.path().to_owned();
    for _ in 0..5 {
        deep.push("a-rather-long-name-of-a-folder-that-takes-its-place-of-bytes");
    }
    fs::create_dir_all(&deep).expect("folders");
    let path = deep.join("model-00001-of-00030.safetensors");
    fs::write(&path, [1; 100]).expect("a file");
    let path = path.to_str().expect("text");
    let Some(mut command) = child(&["read", path, "1", "90"]) else { return };
    let recording = record(&mut command);
    let names: Vec<_> = recording
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Object(object) => Some(stallscope_ebpf::object::describe(object).text),
            _ => None,
        })
        .filter(|text| text.ends_with("/model-00001-of-00030.safetensors"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let end = names[0].strip_prefix('…').expect("cut at the front");
    assert!(path.ends_with(end) && end.len() > 150, "{end}");
}
