//! Page faults: how many, and which file the waits among them are for.

use std::fs;

use stallscope_ebpf::Event;
use stallscope_schemas::wire::{Faults, wait};

use crate::recording::{Recording, child, record};

fn faults(recording: &Recording) -> Vec<&Faults> {
    let all = recording.events.iter().filter_map(|event| match event {
        Event::Faults(faults) if faults.head.task == 1 => Some(faults),
        _ => None,
    });
    all.collect()
}

/// What else a small program touches: its library's data, its stack, its output.
const NOISE: u64 = 100;

#[test]
fn touched_pages_are_faults_to_the_page() {
    let Some(mut command) = child(&["touch", "5000"]) else { return };
    let recording = record(&mut command);
    let own = &recording.said("faults")[0];
    assert!(own[0] >= 5000, "the child says {own:?}");
    let records = faults(&recording);
    let minor: u64 = records.iter().map(|f| f.minor).sum();
    assert!((own[0]..own[0] + NOISE).contains(&minor), "{minor} of {own:?}");
    assert_eq!(records.iter().map(|f| f.major).sum::<u64>(), own[1]);
    for pair in records.windows(2) {
        assert!(pair[0].start_ns + pair[0].duration_ns <= pair[1].start_ns, "stretches do not overlap");
    }
}

#[test]
fn a_fault_that_reads_waits_for_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mapped");
    fs::write(&path, vec![1; 1 << 20]).expect("a file");
    let path = path.to_str().expect("text");
    let Some(mut command) = child(&["map", path, "64"]) else { return };
    let recording = record(&mut command);
    let own = &recording.said("faults")[0];
    if own[1] == 0 {
        println!(
            "skipped: the file system under {} keeps what it is told to forget",
            folder.path().display()
        );
        return;
    }
    let major: u64 = faults(&recording).iter().map(|f| f.major).sum();
    assert!((own[1]..own[1] + NOISE).contains(&major), "{major} of {own:?}");
    let waits: Vec<_> = recording
        .waits(1)
        .into_iter()
        .filter(|w| u16::from(w.kind) == wait::WAIT_FAULT && w.object != 0)
        .collect();
    let named = waits.iter().filter(|w| recording.object(w.object).text == path).count();
    // A device may be done before the thread gets to wait: on a busy machine it mostly is.
    assert!(named >= 1 && named as u64 <= major, "{named} waits of {major} faults");
}
