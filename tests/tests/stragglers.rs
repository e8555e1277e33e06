//! Traces of pipelined jobs, from the file to the report: made-up jobs whose straggler is known, the reference's own
//! results for a real one, and files that are no such traces.

use std::path::{Path, PathBuf};

use stallscope_core::capture::{Capture, CaptureWriter, WriterOptions};
use stallscope_core::findings::Severity;
use stallscope_core::ingest::Ingest;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::{Report, render};
use stallscope_core::whatif::WhatIf;
use stallscope_import::{ImportError, import_file};
use stallscope_tests::stragglers::parquet::{Column, write};
use stallscope_tests::stragglers::{Job, Op, columns};

const RULE: &str = "rank-straggler";

/// A folder with a trace and, where there is one, its description.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(trace: &[u8], meta: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("trace-made.parquet"), trace).unwrap();
        if let Some(meta) = meta {
            std::fs::write(folder.path().join("meta-made.yaml"), meta).unwrap();
        }
        Self { folder }
    }

    fn trace(&self) -> PathBuf {
        self.folder.path().join("trace-made.parquet")
    }
}

fn import(path: &Path) -> Result<Capture<Vec<u8>>, ImportError> {
    let mut ingest = Ingest::new(CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap());
    import_file(path, &mut ingest, &mut |_, _| {})?;
    Ok(Capture::open(ingest.finish().unwrap().0).unwrap())
}

fn report_of(capture: &Capture<Vec<u8>>) -> Report {
    let ledgers = Ledgers::of(capture, Options::default()).unwrap();
    Report::build(capture, &ledgers)
}

fn report(job: &Job) -> Report {
    let files = Files::new(&job.trace(), Some(&job.meta()));
    report_of(&import(&files.trace()).unwrap())
}

fn what_if(report: &Report) -> &WhatIf {
    let what_if = report.whatif.as_ref().expect("the capture is of a pipelined job");
    assert_eq!(what_if.undecided, None);
    what_if
}

fn what_if_of(ops: &[Op]) -> WhatIf {
    let files = Files::new(&write(&columns(ops, false)), None);
    report_of(&import(&files.trace()).unwrap()).whatif.unwrap()
}

fn refusal(columns: &[Column]) -> String {
    let files = Files::new(&write(columns), None);
    let Err(error) = import(&files.trace()) else { panic!("the file is no trace and was imported") };
    error.to_string()
}

/// Shapes of jobs: data-parallel ranks, stages, chunks a stage, micro-batches.
fn shapes() -> Vec<Job> {
    let job = |dp, pp, vpp, microbatches| Job { dp, pp, vpp, microbatches, ..Job::default() };
    let plain = [
        job(1, 1, 1, 4),
        job(2, 1, 1, 4),
        job(1, 2, 1, 5),
        job(2, 3, 1, 6),
        job(3, 4, 1, 2),
        job(2, 2, 2, 4),
        job(1, 4, 3, 8),
        job(2, 1, 2, 3),
    ];
    plain.iter().flat_map(|job| [job.clone(), Job { overlapped: true, ..job.clone() }]).collect()
}

#[test]
fn a_simulation_with_the_real_durations_takes_as_long_as_the_job_did() {
    for mut job in shapes() {
        job.slow.insert((job.dp - 1, job.pp / 2), 1.7);
        let report = report(&job);
        for step in &what_if(&report).steps {
            assert!(step.actual_ns.abs_diff(step.simulated_ns) < 1_000, "{step:?} of {job:?}");
        }
        assert_eq!(what_if(&report).steps.iter().map(|s| s.step).collect::<Vec<_>>(), [10, 13, 16]);
    }
}

#[test]
fn a_healthy_job_is_not_slowed_down_and_nothing_is_said() {
    for job in shapes() {
        let report = report(&job);
        let what_if = what_if(&report);
        assert!((what_if.slowdown.unwrap() - 1.0).abs() < 0.01, "{:?} of {job:?}", what_if.slowdown);
        assert_eq!((what_if.m_w, what_if.m_s), (None, None), "there is nothing to have a share of");
        assert!(report.findings.iter().all(|f| f.rule != RULE), "{job:?}");
    }
}

#[test]
fn one_slow_worker_is_found_and_nobody_else_is_blamed() {
    for mut job in shapes().into_iter().filter(|job| job.dp > 1) {
        let (dp_rank, stage) = (job.dp - 1, 0);
        job.slow.insert((dp_rank, stage), 2.0);
        let report = report(&job);
        let what_if = what_if(&report);
        assert!(what_if.m_w.unwrap() > 0.95, "{:?} of {job:?}", what_if.m_w);
        assert!(job.pp == 1 || what_if.m_s.unwrap() < 0.1, "{:?} of {job:?}", what_if.m_s);
        let finding = report.findings.iter().find(|f| f.rule == RULE).expect("a slowdown is said");
        assert!(finding.severity >= Severity::Warning, "{finding:?}");
        assert_eq!(finding.blame.culprit_ranks, [job.rank(dp_rank, stage)], "{job:?}");
        assert!(finding.summary.starts_with(&format!("rank {} ", job.rank(dp_rank, stage))));
        assert!(finding.blame.recoverable_ns.unwrap() > finding.ns / 2);
        assert!(finding.blame.confidence.unwrap() > 0.99);
    }
}

#[test]
fn two_workers_of_which_one_is_twice_as_slow_lose_a_quarter_of_their_time() {
    // Everything after the computation is the same for both. Its share is worked out from the job itself.
    let mut job = Job { dp: 2, pp: 1, microbatches: 10, ..Job::default() };
    let healthy = what_if(&report(&job)).actual_ns as f64;
    let computation = 10.0 * 60e6;
    job.slow.insert((1, 0), 2.0);
    let report = report(&job);
    let expected = (healthy + computation) / (healthy + 0.5 * computation);
    assert!(
        (what_if(&report).slowdown.unwrap() - expected).abs() < 1e-6,
        "{:?} is not {expected}",
        what_if(&report)
    );
    assert_eq!(what_if(&report).m_s, None, "with one stage there is no last one");
}

#[test]
fn a_slow_last_stage_is_found() {
    for mut job in shapes().into_iter().filter(|job| job.dp > 1 && job.pp > 1) {
        for dp_rank in 0..job.dp {
            job.slow.insert((dp_rank, job.pp - 1), 2.5);
        }
        let report = report(&job);
        let what_if = what_if(&report);
        assert!(what_if.m_s.unwrap() > 0.9, "{:?} of {job:?}", what_if.m_s);
        assert!(what_if.m_w.unwrap() < 0.6, "{:?} of {job:?}", what_if.m_w);
        assert_eq!(what_if.stages.first().unwrap().id, u64::from(job.pp - 1));
        let finding = report.findings.iter().find(|f| f.rule == RULE).expect("a slowdown is said");
        let last: Vec<u32> = (0..job.dp).map(|dp_rank| job.rank(dp_rank, job.pp - 1)).collect();
        assert_eq!(finding.blame.culprit_ranks, last, "{job:?}");
        assert!(finding.summary.starts_with("the last pipeline stage"), "{}", finding.summary);
    }
}

#[test]
fn the_ledger_closes_and_steps_are_those_of_the_trace() {
    let report = report(&Job { single_precision: true, ..Job::default() });
    assert_eq!(report.devices.len(), 6);
    for device in &report.devices {
        let leaves: u64 = device.direct.values().filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(leaves, device.wall_ns);
        let gpu = device.gpu.as_ref().unwrap();
        let steps = gpu.steps.as_ref().unwrap();
        assert_eq!(steps.each[1].name.as_deref(), Some("step 13"));
        assert_eq!(steps.count, 3);
        assert_eq!(gpu.launched_operations, 0);
        assert_eq!(device.world_size, Some(12));
        assert_eq!(device.job.as_deref(), Some("made-up"));
    }
    let times = |device: usize| report.devices[device].direct["compute_ns"].as_u64().unwrap();
    assert!(times(0).abs_diff(3 * (6 * 60_000_000 + 2_000_000)) < 100_000, "{}", times(0));
    assert!(report.capture.losses.is_empty(), "{:?}", report.capture.losses);
}

#[test]
fn steps_that_do_not_overlap_stay_where_they_are() {
    let mut ops = Job::default().run();
    ops.iter_mut().for_each(|op| op.start += 1_000.0 + 10.0 * (op.step - 10) as f64);
    let files = Files::new(&write(&columns(&ops, false)), None);
    let report = report_of(&import(&files.trace()).unwrap());
    assert_eq!(report.capture.window.start_ns, 1_000_000_000_000);
    assert!(report.capture.window.end_ns > 1_060_000_000_000);
    // What lies between the steps was not recorded, and is no idle time.
    let device = &report.devices[0];
    assert!(device.direct["unknown_ns"].as_u64().unwrap() > 58_000_000_000, "{:?}", device.direct);
    let leaves: u64 = device.direct.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(leaves, device.wall_ns);
}

#[test]
fn without_a_description_sizes_come_from_the_trace_and_that_is_said() {
    let job = Job::default();
    let files = Files::new(&job.trace(), None);
    let report = report_of(&import(&files.trace()).unwrap());
    let sizes = what_if(&report).sizes;
    assert_eq!((sizes.dp, sizes.pp, sizes.vpp, sizes.tp, sizes.world), (2, 3, 1, None, None));
    assert!(report.capture.notes.iter().any(|n| n.contains("meta-made.yaml")), "{:?}", report.capture.notes);
    let files = Files::new(&job.trace(), Some("dp_size: 7\n"));
    let report = report_of(&import(&files.trace()).unwrap());
    assert!(report.capture.notes.iter().any(|n| n.contains("dp_size 7 and the trace shows 2")));
    let files = Files::new(&job.trace(), Some("dp_size: many\n"));
    let Err(error) = import(&files.trace()) else { panic!("sizes that are none are refused") };
    let text = error.to_string();
    assert!(text.contains("meta-made.yaml") && text.contains("dp_size is `many`"), "{text}");
}

#[test]
fn a_description_can_say_that_data_is_spread_over_ranks() {
    // With one data-parallel rank there is nobody to exchange gradients with, unless its data is spread.
    let job = Job { dp: 1, pp: 2, ..Job::default() };
    let meta = job.meta().replace("dsp_size: 1", "dsp_size: 4");
    let files = Files::new(&job.trace(), Some(&meta));
    let report = report_of(&import(&files.trace()).unwrap());
    assert_eq!(what_if(&report).sizes.dsp, Some(4));
    assert!((what_if(&report).slowdown.unwrap() - 1.0).abs() < 0.01);
}

#[test]
fn what_a_trace_lacks_is_named() {
    let job = Job::default();
    let all = columns(&job.run(), false);
    let without = |name: &str| all.iter().filter(|c| c.name() != name).cloned().collect::<Vec<_>>();
    let text = refusal(&without("seq_id"));
    assert!(text.contains("without the column seq_id") && text.contains("dp_rank, stage, rank"), "{text}");
    let text = refusal(&columns(&[], false));
    assert!(text.contains("no rows"), "{text}");
    let replaced = |name: &str, column: Column| {
        all.iter().map(|c| if c.name() == name { column.clone() } else { c.clone() }).collect::<Vec<_>>()
    };
    let rows = job.run().len();
    let text = refusal(&replaced("start_ts", Column::Long("start_ts", vec![5; rows])));
    assert!(text.contains("start_ts") && text.contains("seconds as floating-point"), "{text}");
    let text = refusal(&replaced("stage", Column::Text("stage", vec!["one".to_owned(); rows])));
    assert!(text.contains("stage") && text.contains("whole numbers"), "{text}");
    let text = refusal(&replaced("rank", Column::Int("rank", vec![-3; rows])));
    assert!(text.contains("no GPU activity") && text.contains("all "), "{text}");
    let text = refusal(&replaced("duration", Column::Double("duration", vec![f64::NAN; rows])));
    assert!(text.contains("times"), "{text}");
}

#[test]
fn rows_that_make_no_sense_are_left_out_and_counted() {
    let mut ops = Job::default().run();
    let count = ops.len();
    ops.push(Op { start: f64::INFINITY, ..ops[0].clone() });
    ops.push(Op { duration: -1.0, ..ops[0].clone() });
    let files = Files::new(&write(&columns(&ops, false)), None);
    let report = report_of(&import(&files.trace()).unwrap());
    assert_eq!(report.capture.losses[0].counter, "event_time_invalid");
    assert_eq!(report.capture.losses[0].count, 2);
    let on_devices: u64 = report.devices.iter().map(|d| d.gpu.as_ref().unwrap().operations).sum();
    assert_eq!(on_devices, (count - 3 * 6) as u64, "all but garbage collection");
    assert!(what_if(&report).notes.is_empty());
}

#[test]
fn a_step_that_is_not_whole_is_left_out_of_the_simulation() {
    let mut ops = Job::default().run();
    let at = ops.iter().position(|op| op.step == 13 && op.optype == "forward-send").unwrap();
    ops.remove(at);
    let what_if = what_if_of(&ops);
    assert_eq!(what_if.steps.iter().map(|s| s.step).collect::<Vec<_>>(), [10, 16]);
    assert!(
        what_if.notes[0].contains("1 of 3 steps") && what_if.notes[0].contains("steps 13"),
        "{:?}",
        what_if.notes
    );
}

/// Why the operations that are left cannot be simulated.
fn undecided(change: impl FnOnce(&mut Vec<Op>)) -> String {
    let mut ops = Job::default().run();
    change(&mut ops);
    let what_if = what_if_of(&ops);
    assert_eq!((what_if.slowdown, what_if.m_w, what_if.m_s), (None, None, None));
    what_if.undecided.unwrap()
}

#[test]
fn a_job_whose_dependencies_cannot_be_known_is_not_simulated_and_says_why() {
    let why =
        undecided(|ops| ops.retain(|op| !(op.optype == "forward-send" && op.stage == 1 && op.seq_id == 2)));
    assert!(why.contains("stage 1") && why.contains("5 forward-send for 6 forward-compute"), "{why}");
    let why = undecided(|ops| ops.retain(|op| op.stage != 1));
    assert!(why.contains("no operations of stage 1"), "{why}");
    let why = undecided(|ops| ops.retain(|op| !(op.optype.ends_with("compute") && op.stage == 2)));
    assert!(why.contains("stage 2") && why.contains("neither forward nor backward"), "{why}");
    let why = undecided(|ops| ops.retain(|op| !(op.optype == "forward-recv" && op.stage == 2)));
    assert!(why.contains("forward-send of stage 1") && why.contains("forward-recv of stage 2"), "{why}");
    // The gradients of a micro-batch are there before its activations.
    let why = undecided(|ops| {
        let first = |op: &&mut Op| op.stage == 0 && op.seq_id == 0 && op.optype == "backward-compute";
        ops.iter_mut().filter(first).for_each(|op| op.start = 0.001);
    });
    assert!(why.contains("circle") && why.contains("backward-compute 0 of stage 0"), "{why}");
}

#[test]
fn kinds_that_are_not_known_are_left_out_and_said() {
    let mut ops = Job::default().run();
    let strange: Vec<Op> = ops
        .iter()
        .filter(|op| op.optype == "optimizer")
        .map(|op| Op { optype: "evaluation".to_owned(), start: op.start + 0.1, ..op.clone() })
        .collect();
    let count = strange.len();
    ops.extend(strange);
    let what_if = what_if_of(&ops);
    assert!(what_if.notes[0].starts_with(&format!("{count} operations are of kinds")), "{:?}", what_if.notes);
    assert!((what_if.slowdown.unwrap() - 1.0).abs() < 0.01);
}

#[test]
fn what_is_cut_or_changed_anywhere_is_refused_or_read_but_breaks_nothing() {
    let trace = Job { dp: 1, pp: 2, microbatches: 2, steps: 1, ..Job::default() }.trace();
    let whole = Files::new(&trace, None);
    assert!(import(&whole.trace()).is_ok());
    for end in (0..trace.len()).step_by(trace.len() / 97) {
        let files = Files::new(&trace[..end], None);
        let Err(error) = import(&files.trace()) else {
            panic!("{end} of {} bytes are no trace", trace.len())
        };
        assert!(error.to_string().contains("trace-made.parquet"), "{error}");
    }
    // Headers are where lengths are: all of them, and some of the values.
    let footer = trace.len() - 1200;
    for at in (0..footer).step_by(13).chain(footer..trace.len()) {
        for value in [0x00, 0x7f, 0xff] {
            let mut changed = trace.clone();
            changed[at] = value;
            let files = Files::new(&changed, None);
            if let Ok(capture) = import(&files.trace()) {
                report_of(&capture);
            }
        }
    }
}

/// The job of the fixtures.
fn fixture_job() -> Job {
    Job { dp: 1, pp: 2, microbatches: 2, steps: 2, single_precision: true, ..Job::default() }
}

/// What fixtures/stragglers/make.py reads.
#[test]
#[ignore = "writes the input of the script that makes the fixtures, to the path in FIXTURE_INPUT"]
fn write_the_job_of_the_fixtures() {
    std::fs::write(std::env::var_os("FIXTURE_INPUT").unwrap(), fixture_job().trace()).unwrap();
}

#[test]
fn files_as_pandas_writes_them_are_read() {
    // Dictionaries, definition levels, Snappy, gzip, pages of either version: by pyarrow, from the job in single precision.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/stragglers");
    let job = fixture_job();
    let plain = Files::new(&job.trace(), None);
    let expected = report_of(&import(&plain.trace()).unwrap());
    for name in ["snappy", "gzip-v2", "plain-v2", "many-pages"] {
        let report = report_of(&import(&folder.join(format!("{name}.parquet"))).unwrap());
        assert_eq!(what_if(&report).steps, what_if(&expected).steps, "{name}");
        assert_eq!(what_if(&report).operations, what_if(&expected).operations, "{name}");
    }
    let Err(error) = import(&folder.join("zstd.parquet")) else { panic!("Zstandard is not read") };
    assert!(error.to_string().contains("Zstandard"), "{error}");
}

#[test]
fn the_report_says_it_in_words() {
    let mut job = Job { dp: 4, ..Job::default() };
    job.slow.insert((2, 1), 2.0);
    let report = report(&job);
    let mut text = String::new();
    render(&report, &mut text).unwrap();
    let section =
        text.split("\n\n").find(|part| part.starts_with("what if")).expect("the report has the section");
    insta::assert_snapshot!(section);
    let finding = report.findings.iter().find(|f| f.rule == RULE).unwrap();
    insta::assert_snapshot!(format!("{}\n{}", finding.summary, finding.evidence));
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert!(json["whatif"]["m_w"].as_f64().unwrap() > 0.9);
    assert_eq!(json["whatif"]["slowest_workers"][0]["rank"], job.rank(2, 1));
}
