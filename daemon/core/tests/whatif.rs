//! What if, of captures that are written row by row: what the importer's traces cannot have.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use stallscope_core::capture::{Capture, CaptureWriter, Device, Source, WriterOptions};
use stallscope_core::rows::PipelineOp;
use stallscope_core::whatif::{WhatIf, analyse};
use stallscope_schemas::record::{PipelineOpKind, device_kind};
use stallscope_schemas::units::{StringId, TimeNs};

/// Kind, begin, length, sequence number, stage.
type Op = (PipelineOpKind, i64, u64, u64, u64);

/// One worker each with its operations, and the source that it comes from.
fn analysed(workers: &[(u32, &[Op])]) -> Option<WhatIf> {
    let mut writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let mut sources = Vec::new();
    for &(source, ops) in workers {
        while sources.len() <= source as usize {
            sources.push(
                writer.add_source(Source { path: format!("t{}", sources.len()), format: "made".into() }),
            );
        }
        let device = writer.add_device(Device {
            source: sources[source as usize],
            kind: device_kind::GPU,
            id: "worker".to_owned(),
            ..Device::default()
        });
        for &(kind, start, duration_ns, sequence, stage) in ops {
            let row = PipelineOp {
                start: TimeNs(start),
                duration_ns,
                kind,
                name: StringId(0),
                step: -3,
                dp_rank: 0,
                stage,
                sequence,
                chunk: None,
                global_chunk: None,
                microbatch: None,
            };
            writer.push_pipeline_op(device, row).unwrap();
        }
    }
    analyse(&Capture::open(writer.finish().unwrap().0).unwrap())
}

const FORWARD: PipelineOpKind = PipelineOpKind::ForwardCompute;
const BACKWARD: PipelineOpKind = PipelineOpKind::BackwardCompute;

#[test]
fn a_capture_of_anything_else_has_no_answer() {
    assert_eq!(analysed(&[]), None);
    assert_eq!(analysed(&[(0, &[])]), None);
}

#[test]
fn what_a_host_did_between_operations_is_in_what_was_recorded_and_not_in_the_simulation() {
    let answer = analysed(&[(0, &[(FORWARD, 100, 10, 0, 0), (BACKWARD, 150, 30, 0, 0)])]).unwrap();
    assert_eq!((answer.actual_ns, answer.simulated_ns, answer.ideal_ns), (80, 40, 40));
    assert_eq!(answer.slowdown, Some(1.0));
    assert_eq!(answer.steps[0].step, -3);
    assert_eq!(answer.workers.len(), 1);
}

#[test]
fn of_ranks_that_do_the_same_the_first_stands_for_all() {
    let ops: &[_] = &[(FORWARD, 0, 10, 0, 0), (BACKWARD, 10, 30, 0, 0)];
    let slower: &[_] = &[(FORWARD, 0, 90, 0, 0), (BACKWARD, 90, 90, 0, 0)];
    let answer = analysed(&[(0, ops), (0, slower)]).unwrap();
    assert_eq!(answer.simulated_ns, 40);
    assert!(answer.notes[0].contains("2 operations are of further ranks"), "{:?}", answer.notes);
}

#[test]
fn traces_of_several_jobs_in_one_capture_are_refused() {
    let ops: &[_] = &[(FORWARD, 0, 10, 0, 0)];
    let answer = analysed(&[(0, ops), (1, ops)]).unwrap();
    assert!(answer.undecided.unwrap().contains("several jobs"));
}

#[test]
fn numbers_that_nobody_would_write_break_nothing() {
    let far = u64::MAX;
    for ops in [
        &[(FORWARD, i64::MAX / 4, far / 8, far, 0)][..],
        &[(FORWARD, i64::MIN / 4, far / 4, 0, 0), (BACKWARD, i64::MAX / 4, far / 8, far, 0)],
        &[(FORWARD, 0, 1, 0, far)],
        &[(PipelineOpKind::Other, 0, 1, 0, 0)],
        &[(PipelineOpKind::ForwardSend, 0, 1, 0, 0)],
        &[(FORWARD, 0, 0, 0, 0), (BACKWARD, 0, 0, 0, 0)],
        &[(FORWARD, 5, 5, 0, 0), (FORWARD, 5, 7, 0, 0)],
    ] {
        let answer = analysed(&[(0, ops)]).unwrap();
        assert_eq!(answer.slowdown.is_none(), answer.undecided.is_some(), "{ops:?}");
        assert!(answer.slowdown.is_none_or(f64::is_finite));
    }
}
