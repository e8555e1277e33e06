//! Requests to block devices: how many bytes, whose, for which file, and when.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use stallscope_ebpf::{Event, object};
use stallscope_schemas::record::BlockOp;
use stallscope_schemas::wire::BlockIo;

use crate::recording::{Recording, child, record};

const TIMES: u64 = 32;
const SIZE: u64 = 64 << 10;

fn requests(recording: &Recording) -> Vec<&BlockIo> {
    let all = recording.events.iter().filter_map(|event| match event {
        Event::BlockIo(io) if io.head.task == 1 => Some(io),
        _ => None,
    });
    all.collect()
}

fn written_file(folder: &Path) -> PathBuf {
    let path = folder.join("shard");
    fs::write(&path, vec![3; usize::try_from(TIMES * SIZE).expect("small")]).expect("a file");
    File::open(&path).and_then(|file| file.sync_all()).expect("it reaches the disk");
    path
}

/// Every byte once, each request within the call that asked for it.
fn check_direct_reads(path: &Path) {
    let path = path.to_str().expect("text");
    let (times, size) = (TIMES.to_string(), SIZE.to_string());
    let Some(mut command) = child(&["direct", path, &times, &size]) else { return };
    let recording = record(&mut command);
    let calls = recording.said("read");
    if calls.is_empty() {
        println!("skipped: no direct I/O on the file system of {path}");
        return;
    }
    let requests: Vec<_> = requests(&recording)
        .into_iter()
        .filter(|io| io.object != 0 && recording.object(io.object).text == path)
        .collect();
    let bytes: u64 = requests.iter().map(|io| u64::from(io.bytes)).sum();
    assert_eq!(bytes, TIMES * SIZE, "{requests:?}");
    assert!(requests.len() as u64 >= TIMES);
    for io in requests {
        assert_eq!((io.operation, io.error), (u32::from(BlockOp::Read.id()), 0));
        assert!(io.duration_ns > 0 && io.queued_ns <= io.duration_ns, "{io:?}");
        let end = io.start_ns + io.duration_ns;
        let within = calls.iter().filter(|call| call[0] <= io.start_ns && end <= call[1]).count();
        assert_eq!(within, 1, "{io:?} is part of one call");
        let disk = format!("/sys/dev/block/{}", object::device(io.device));
        assert!(fs::metadata(&disk).is_ok(), "{disk}");
    }
}

#[test]
fn direct_reads_are_requests_of_their_file() {
    let folder = tempfile::tempdir().expect("a folder");
    check_direct_reads(&written_file(folder.path()));
}

/// A file system in a file, mounted.
struct Loop {
    folder: tempfile::TempDir,
    mounted: PathBuf,
}

impl Loop {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().ok()?;
        let image = folder.path().join("image");
        let mounted = folder.path().join("mounted");
        File::create(&image).and_then(|file| file.set_len(64 << 20)).ok()?;
        fs::create_dir(&mounted).ok()?;
        let run = |program: &str, arguments: &[&Path]| {
            Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
        };
        let made = run("mkfs.ext4", &[Path::new("-q"), &image])
            && run("mount", &[Path::new("-oloop"), &image, &mounted]);
        made.then_some(Self { folder, mounted })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg(&self.mounted).status();
        println!("{}: {gone:?}", self.folder.path().display());
    }
}

#[test]
fn requests_to_a_loop_device_belong_to_who_queued_them() {
    let Some(place) = Loop::new() else {
        println!("skipped: no loop device can be made and mounted");
        return;
    };
    let path = written_file(&place.mounted);
    check_direct_reads(&path);
}

/// Pages that are read into memory are those of a file, whoever asks: here a mapping, elsewhere readahead.
#[test]
fn reads_through_memory_are_joined_by_the_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = written_file(folder.path());
    let path = path.to_str().expect("text");
    let Some(mut command) = child(&["map", path, "64"]) else { return };
    let recording = record(&mut command);
    if recording.said("faults")[0][1] == 0 {
        println!(
            "skipped: the file system under {} keeps what it is told to forget",
            folder.path().display()
        );
        return;
    }
    let bytes: u64 = requests(&recording)
        .into_iter()
        .filter(|io| io.object != 0 && recording.object(io.object).text == path)
        .map(|io| u64::from(io.bytes))
        .sum();
    assert!((64 * 4096..=TIMES * SIZE).contains(&bytes), "{bytes}");
}
