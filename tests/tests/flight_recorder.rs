//! Hangs that are told from Flight Recorder dumps: who is to blame is known, because the jobs are made up, or because the
//! fault was injected.

use std::path::{Path, PathBuf};

use stallscope_core::capture::{Capture, CaptureWriter, WriterOptions};
use stallscope_core::findings::{Finding, Severity};
use stallscope_core::ingest::Ingest;
use stallscope_core::ledger::{Ledgers, Options};
use stallscope_core::report::{Report, render};
use stallscope_import::flight_recorder::import_job;
use stallscope_tests::flight_recorder::{
    Fault, Form, Job, Kind, Layout, Scenario, Value, pickle, places, run, write,
};
use stallscope_tests::rng::Rng;
use stallscope_tests::{cli, scoreboard};

/// What is said of dumps, and how many were left out.
fn report(paths: &[PathBuf]) -> Result<(Report, usize), String> {
    let writer = CaptureWriter::new(Vec::new(), WriterOptions::default()).unwrap();
    let mut ingest = Ingest::new(writer);
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let job = import_job(&paths, &mut ingest, &mut |_, _| {}).map_err(|error| error.to_string())?;
    let (bytes, _) = ingest.finish().unwrap();
    let capture = Capture::open(bytes).unwrap();
    let ledgers = Ledgers::of(&capture, Options::default()).unwrap();
    Ok((Report::build(&capture, &ledgers), job.left_out.len()))
}

/// Everybody who is blamed for anything.
fn blamed(report: &Report) -> Vec<u32> {
    let mut all: Vec<u32> =
        report.findings.iter().flat_map(|f| f.blame.culprit_ranks.iter().copied()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn hangs(report: &Report) -> Vec<&Finding> {
    report.findings.iter().filter(|f| f.category == "hang").collect()
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    render(report, &mut text).unwrap();
    text
}

fn told(job: &Job, form: &Form) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let paths = write(job, form, folder.path()).unwrap();
    let (report, left_out) = report(&paths).unwrap();
    assert_eq!(left_out, 0);
    report
}

const LAYOUTS: [Layout; 6] = [
    Layout { tensor: 4, data: 2, pipeline: 2 },
    Layout { tensor: 4, data: 1, pipeline: 1 },
    Layout { tensor: 1, data: 4, pipeline: 2 },
    Layout { tensor: 2, data: 4, pipeline: 2 },
    Layout { tensor: 1, data: 8, pipeline: 1 },
    Layout { tensor: 4, data: 2, pipeline: 4 },
];

/// A fault of one or two ranks at about the same place of the program, in groups of more than two.
fn scenario(layout: Layout, fault: Fault, ranks: u64, seed: u64) -> Scenario {
    let mut rng = Rng::new(seed);
    let mut kinds = vec![Kind::Stage];
    if layout.tensor > 2 {
        kinds.push(Kind::Tensor);
    }
    if fault == Fault::OtherSize {
        // All-to-all may be uneven: another size is no mistake there.
        kinds.retain(|kind| *kind == Kind::Tensor);
    }
    let mut chosen: Vec<u32> = Vec::new();
    while (chosen.len() as u64) < ranks {
        let rank = u32::try_from(rng.between(0, u64::from(layout.world()) - 1)).unwrap();
        if !chosen.contains(&rank) {
            chosen.push(rank);
        }
    }
    chosen.sort_unstable();
    let place = usize::try_from(rng.bits() >> 33).unwrap();
    let at = chosen.iter().map(|&rank| {
        let places = places(layout, rank, &kinds);
        places[place % places.len()]
    });
    Scenario { layout, fault, at: at.collect(), ranks: chosen }
}

/// Runs a fault on every layout and in every form; the culprits have to be those that were chosen, always.
fn exactly_the_culprits(fault: Fault, ranks: u64) {
    let forms = [
        Form::default(),
        Form { open_only: false, ..Form::default() },
        Form { open_only: false, status: false, frames: true, ..Form::default() },
        Form { batched: true, ..Form::default() },
        Form { batched: true, open_only: false, timed: true, ..Form::default() },
        Form { json: true, ..Form::default() },
    ];
    let mut faulty = 0;
    for (number, layout) in LAYOUTS.into_iter().enumerate() {
        if fault == Fault::OtherSize && layout.tensor < 3 {
            continue;
        }
        for seed in 0..5u64 {
            let scenario = scenario(layout, fault, ranks, seed * 1000 + number as u64);
            let job = run(&scenario);
            for form in &forms {
                let report = told(&job, form);
                assert_eq!(blamed(&report), job.culprits(), "{scenario:?} {form:?}\n{}", text(&report));
                assert!(hangs(&report).iter().all(|f| f.severity == Severity::Critical));
            }
            faulty += job.culprits().len();
        }
    }
    assert!(faulty > 12, "{faulty}");
}

#[test]
fn a_host_that_stops_is_the_culprit_and_nobody_else() {
    exactly_the_culprits(Fault::HostStops, 1);
}

#[test]
fn two_hosts_that_stop_are_the_culprits() {
    exactly_the_culprits(Fault::HostStops, 2);
}

#[test]
fn a_process_that_is_gone_is_told_by_its_missing_dump() {
    exactly_the_culprits(Fault::Killed, 1);
    exactly_the_culprits(Fault::Killed, 2);
}

#[test]
fn a_call_that_differs_is_told_from_those_of_the_others() {
    exactly_the_culprits(Fault::OtherSize, 1);
    exactly_the_culprits(Fault::OtherCall, 1);
}

#[test]
fn a_device_that_fails_is_told_and_nobody_innocent_is() {
    let (mut found, mut all) = (0, 0);
    for layout in LAYOUTS.into_iter().filter(|layout| layout.pipeline < 4) {
        for seed in 0..20 {
            let job = run(&scenario(layout, Fault::DeviceFails, 1, seed));
            let got = blamed(&told(&job, &Form::default()));
            assert!(got.iter().all(|rank| job.culprits().contains(rank)), "{layout:?} {seed}: {got:?}");
            found += usize::from(got == job.culprits());
            all += 1;
        }
    }
    // Where the device fails in a receive, or right before hosts wait for devices, dumps look the same of all.
    assert!(found * 10 >= all * 7, "{found} of {all}");
}

#[test]
fn a_device_that_does_not_begin_is_told_where_begins_are_recorded_else_nobody_is() {
    let layout = Layout { tensor: 4, data: 2, pipeline: 1 };
    let mut found = 0;
    for seed in 0..20 {
        let job = run(&scenario(layout, Fault::DeviceSleeps, 1, seed));
        let timed = blamed(&told(&job, &Form { timed: true, ..Form::default() }));
        assert!(timed.iter().all(|rank| job.culprits().contains(rank)), "{seed}: {timed:?}");
        found += usize::from(timed == job.culprits());
        let report = told(&job, &Form::default());
        assert_eq!(blamed(&report), [0u32; 0], "{}", text(&report));
        assert!(!hangs(&report).is_empty(), "that it hangs is said all the same");
    }
    assert!(found >= 15, "{found}");
}

#[test]
fn a_job_that_has_ended_does_not_hang() {
    for layout in LAYOUTS {
        let job = run(&scenario(layout, Fault::None, 1, 7));
        for form in [Form { open_only: false, ..Form::default() }, Form::default()] {
            let report = told(&job, &form);
            assert!(report.findings.is_empty(), "{}", text(&report));
        }
    }
}

#[test]
fn innocent_ranks_without_dumps_are_named_and_not_blamed() {
    let layout = Layout { tensor: 4, data: 2, pipeline: 2 };
    for seed in 0..20 {
        let job = run(&scenario(layout, Fault::HostStops, 1, seed));
        let culprits = job.culprits();
        let folder = tempfile::tempdir().unwrap();
        let mut paths = write(&job, &Form::default(), folder.path()).unwrap();
        let mut missing = Vec::new();
        let mut rng = Rng::new(seed);
        while missing.len() < 3 {
            let rank = u32::try_from(rng.between(0, 15)).unwrap();
            if !culprits.contains(&rank) && !missing.contains(&rank) {
                missing.push(rank);
            }
        }
        missing.sort_unstable();
        paths.retain(|path| missing.iter().all(|rank| !path.ends_with(format!("_dump_{rank}"))));
        let (report, _) = report(&paths).unwrap();
        assert_eq!(blamed(&report), culprits, "{missing:?}\n{}", text(&report));
        assert_eq!(report.collective_state.as_ref().unwrap().ranks_missing, missing);
        let confidence = report.findings[0].blame.confidence.unwrap();
        assert!(confidence > 0.0 && confidence <= 1.0);
    }
}

#[test]
fn dumps_of_older_versions_are_read() {
    let job = run(&scenario(Layout { tensor: 4, data: 2, pipeline: 1 }, Fault::HostStops, 1, 3));
    let report = told(&job, &Form { old: true, open_only: false, ..Form::default() });
    assert_eq!(blamed(&report), job.culprits(), "{}", text(&report));
}

#[test]
fn a_short_buffer_does_not_make_culprits() {
    for seed in 0..20 {
        let job = run(&scenario(Layout { tensor: 4, data: 2, pipeline: 2 }, Fault::HostStops, 1, seed));
        let got = blamed(&told(&job, &Form { open_only: false, capacity: 12, ..Form::default() }));
        assert!(got.iter().all(|rank| job.culprits().contains(rank)), "{seed}: {got:?}");
    }
}

fn stopped(folder: &Path) -> Vec<PathBuf> {
    let job = run(&scenario(Layout { tensor: 4, data: 2, pipeline: 2 }, Fault::HostStops, 1, 5));
    write(&job, &Form { frames: true, open_only: false, ..Form::default() }, folder).unwrap()
}

#[test]
fn what_is_no_dump_of_the_job_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = stopped(folder.path());
    // Twice the same rank.
    let again = folder.path().join("copy_of_dump_3");
    std::fs::copy(&paths[3], &again).unwrap();
    let error = report(&[paths.clone(), vec![again]].concat()).unwrap_err();
    assert!(error.contains("it is of rank 3, as"), "{error}");
    // Another job.
    let other = tempfile::tempdir().unwrap();
    let small = run(&scenario(Layout { tensor: 4, data: 1, pipeline: 1 }, Fault::HostStops, 1, 5));
    let others =
        write(&small, &Form { frames: true, open_only: false, ..Form::default() }, other.path()).unwrap();
    let error = report(&[paths[4..].to_vec(), others[..1].to_vec()].concat()).unwrap_err();
    assert!(error.contains("another job"), "{error}");
    // A pickle that calls something, and one that is something else.
    std::fs::write(&paths[0], b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.").unwrap();
    std::fs::write(&paths[1], pickle(&Value::List(vec![Value::Int(1)]))).unwrap();
    let (told, left_out) = report(&paths).unwrap();
    assert_eq!(left_out, 2);
    assert_eq!(told.collective_state.unwrap().ranks_missing, [0, 1]);
    // None is left.
    let error = report(&paths.split_off(14)[..0]).unwrap_err();
    assert!(!error.is_empty());
    let error = report(&paths[..1]).unwrap_err();
    assert!(error.contains("import a name") && error.contains("nothing in a file is executed"), "{error}");
}

#[test]
fn two_runs_of_one_job_are_told_apart() {
    let Some(truth) = scoreboard::ground_truth() else { return eprintln!("skipped: no real dumps") };
    let folder = truth.join("flight-recorder");
    let dump = |case: &str, rank: u32| folder.join(case).join(format!("_dump_{rank}"));
    let mixed = [dump("gpu_error_2nd", 0), dump("gpu_error_2nd", 8), dump("lock_gil_1st", 1)];
    let error = report(&mixed).unwrap_err();
    assert!(error.contains("another run"), "{error}");
}

#[test]
fn injected_faults_of_a_real_job_are_found_with_all_dumps_and_with_some() {
    let Some(truth) = scoreboard::ground_truth() else { return eprintln!("skipped: no real dumps") };
    for case in ["gpu_error_2nd", "lock_gil_1st"] {
        let all = |leave_out: &[u32]| -> Vec<PathBuf> {
            let ranks = (0..16).filter(|rank| !leave_out.contains(rank));
            ranks.map(|rank| truth.join("flight-recorder").join(case).join(format!("_dump_{rank}"))).collect()
        };
        // Innocent ranks, whole stages of them, and the culprits themselves may be missing.
        for missing in [&[][..], &[3], &[8, 12], &[0, 1, 2, 3, 4, 5, 6, 7], &[9, 14]] {
            let (report, left_out) = report(&all(missing)).unwrap();
            assert_eq!(
                (blamed(&report), left_out),
                (vec![9, 14], 0),
                "{case} {missing:?}\n{}",
                text(&report)
            );
            assert_eq!(report.collective_state.unwrap().ranks_missing, missing);
        }
    }
}

#[test]
fn the_text_names_who_is_missing_where_and_from_which_line_the_others_came() {
    let folder = tempfile::tempdir().unwrap();
    let (report, _) = report(&stopped(folder.path())).unwrap();
    assert!(report.devices.is_empty());
    let expected = include_str!("flight_recorder.txt");
    assert_eq!(text(&report), expected, "\n{}", text(&report));
}

#[test]
fn the_program_takes_a_job_as_its_list_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut paths = stopped(folder.path());
    let capture = folder.path().join("job.stall");
    let import = |paths: &[PathBuf]| {
        let mut args: Vec<std::ffi::OsString> = vec!["import".into()];
        args.extend(paths.iter().map(Into::into));
        args.extend(["-o".into(), capture.clone().into()]);
        cli::run(args).unwrap()
    };
    let output = import(&paths);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("collective calls of 16 ranks"), "{said}");
    let json = cli::run_json([Path::new("report"), Path::new("--json"), &capture]).unwrap();
    assert_eq!(json["findings"][0]["category"], "hang");
    assert_eq!(json["findings"][0]["rule"], "hang-collective");
    assert_eq!(json["findings"][0]["confidence"], 1.0);
    assert!(json["findings"][0]["recoverable_ns"].is_null());
    let chain = json["findings"][0]["chain"].as_array().unwrap();
    assert_eq!(chain.last().unwrap()["rank"], json["findings"][0]["culprit_ranks"][0]);
    assert_eq!(json["collective_state"]["world_size"], 16);
    assert_eq!(json["devices"].as_array().unwrap().len(), 0);
    // A file that is none is left out, with the exit code of work that is done in part.
    std::fs::write(&paths[2], b"\x80\x02}.").unwrap();
    let output = import(&paths);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("_dump_2"));
    // One dump by itself is enough to say what it waits for; a comparison has no time to compare.
    let alone = paths.remove(0);
    assert!(cli::run([Path::new("report"), &alone]).unwrap().status.success());
    let diff = cli::run([Path::new("diff"), &capture, &capture]).unwrap();
    assert!(!diff.status.success());
}
