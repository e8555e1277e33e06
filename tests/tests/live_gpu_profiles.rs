//! A profiler of the user's in a job that is recorded: what went to it is UNKNOWN and never idle, it gets its own records
//! and next to none of ours, and afterwards the recording goes on. On the double of CUDA, which says nothing about a GPU;
//! without root each test says so and passes.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use stallscope_cupti_double::folder::Version;
use stallscope_cupti_double::truth::{Line, Op, OpKind, Process, parse};
use stallscope_tests::live::gpu::{GpuJob, double};
use stallscope_tests::live::lab::{json, leaves, obstacle, start, until};

macro_rules! needs_root {
    () => {
        if let Some(why) = obstacle() {
            println!("skipped: {why}");
            return Ok(());
        }
    };
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A recording with a profile in it.
struct Recorded {
    report: Value,
    /// What the user's profiler says.
    profile: Value,
    truth: Vec<Line>,
}

/// Records a trainer for so long, and has it profile itself in the middle as the order says.
fn record(version: Version, seconds: u32, order: &str) -> anyhow::Result<Recorded> {
    let folder = tempfile::tempdir()?;
    let libraries = double(folder.path(), version)?;
    let (capture, file) = (folder.path().join("a.stall"), folder.path().join("profile"));
    let truth = folder.path().join("truth");
    let arguments = ["--profile-file", text(&file), "--load-ms", "3"];
    let settings = [("STALLSCOPE_DOUBLE_TRUTH", text(&truth))];
    let job = GpuJob::start_with(folder.path(), &libraries, 1, &arguments, &settings)?;
    let (pid, time) = (job.pid().to_string(), format!("{seconds}s"));
    let mut recorder = start(&["record", "--pid", &pid, "-d", &time, "-o", text(&capture), "--json"])?;
    // Until the agent collects, and a while of the job without the profiler.
    until("the agent to collect", || {
        std::fs::read_to_string(&truth).is_ok_and(|lines| lines.contains("cuptiActivityRegisterCallbacks"))
    })?;
    std::thread::sleep(Duration::from_millis(1200));
    std::fs::write(&file, order)?;
    let done = folder.path().join("profile.done");
    until("the profile", || done.exists())?;
    anyhow::ensure!(recorder.0.wait()?.success(), "the recording fails");
    job.goes_on()?;
    drop(job);
    Ok(Recorded {
        report: json(&["report", text(&capture), "--json"])?,
        profile: serde_json::from_slice(&std::fs::read(done)?)?,
        truth: parse(&std::fs::read_to_string(truth)?).map_err(anyhow::Error::msg)?,
    })
}

impl Recorded {
    fn device(&self) -> &Value {
        &self.report["devices"][0]
    }

    fn process(&self) -> anyhow::Result<&Process> {
        self.truth
            .iter()
            .find_map(|line| if let Line::Process(process) = line { Some(process) } else { None })
            .context("the job has begun CUDA")
    }

    fn operations(&self) -> impl Iterator<Item = &Op> {
        self.truth
            .iter()
            .filter_map(|line| if let Line::Op(op) = line { Some(op) } else { None })
            .filter(|op| op.kind != OpKind::Event)
    }

    /// How long the device was really idle in the window of the report.
    fn truly_idle_ns(&self) -> anyhow::Result<i64> {
        let window = &self.device()["window"];
        let bound = |name: &str| window[name].as_i64().context("a window");
        let (from, to) = (bound("start_ns")?, bound("end_ns")?);
        let offset = self.process()?.realtime_minus_monotonic_ns;
        let mut busy: Vec<(i64, i64)> = self
            .operations()
            .filter_map(|op| Some((op.start_ns?.cast_signed() + offset, op.end_ns?.cast_signed() + offset)))
            .collect();
        busy.sort_unstable();
        let (mut idle, mut at) = (0, from);
        for (start, end) in busy {
            idle += (start.min(to) - at).max(0);
            at = at.max(end);
        }
        Ok(idle + (to - at).max(0))
    }

    /// What the report calls idle was idle, and how long it knows nothing.
    fn unknown_ms(&self) -> anyhow::Result<i64> {
        let direct = leaves(self.device(), "direct")?;
        let (said, truly) = (i64::try_from(direct["idle_ns"])?, self.truly_idle_ns()?);
        // Times are converted from one clock to another, at each edge of thousands of gaps.
        assert!(
            said <= truly + truly / 100 + 2_000_000,
            "{said} ns said to be idle, {truly} are: {direct:?}"
        );
        Ok(i64::try_from(direct["unknown_ns"])? / 1_000_000)
    }

    fn losses(&self, name: &str) -> u64 {
        let losses = self.report["capture"]["losses"].as_array().into_iter().flatten();
        losses.filter(|loss| loss["counter"] == name).filter_map(|loss| loss["count"].as_u64()).sum()
    }

    /// The user's profile has the kernels that were launched in it, and no others, but for those that CUPTI wrote into the
    /// buffer of ours that it had when the profile began. Those may be all of a profile that is over before the next flush.
    fn profile_is_whole(&self) {
        let at = |name: &str| self.profile[name].as_u64().expect("a time");
        let in_profile = |op: &&Op| {
            matches!(op.kind, OpKind::Kernel | OpKind::Collective)
                && (at("begin_ns")..at("end_ns")).contains(&op.launched_ns)
        };
        let made = self.operations().filter(in_profile).count() as u64;
        let kernels = |of: &str| self.profile[of]["10"].as_u64().unwrap_or(0);
        let (got, ours) = (kernels("counts"), kernels("foreign"));
        println!("{made} kernels, {got} in the user's profile, {ours} in buffers of ours; {}", self.profile);
        let is_short = self.length_ms() < 1_000;
        assert!(got <= made && made <= got + ours && (got > 0 || is_short), "{made} {got} {ours}");
    }

    fn length_ms(&self) -> i64 {
        let at = |name: &str| self.profile[name].as_i64().expect("a time");
        (at("end_ns") - at("begin_ns")) / 1_000_000
    }
}

#[test]
fn a_profile_between_two_looks_is_unknown_and_afterwards_the_recording_goes_on() -> anyhow::Result<()> {
    needs_root!();
    for version in [Version::V12_4, Version::V13_3] {
        let recorded = record(version, 8, "12")?;
        let (length_ms, unknown_ms) = (recorded.length_ms(), recorded.unknown_ms()?);
        println!("{version:?}: a profile of {length_ms} ms, {unknown_ms} ms unknown");
        assert!(unknown_ms >= length_ms - 1, "{unknown_ms} of {length_ms} ms");
        assert!(unknown_ms < 5_000, "{unknown_ms} ms of 8 s: it has not come back");
        assert!(recorded.losses("agent_taken") >= 1, "{:#}", recorded.report["capture"]["losses"]);
        recorded.profile_is_whole();
    }
    Ok(())
}

#[test]
fn a_profiler_that_does_not_subscribe_is_noticed_too() -> anyhow::Result<()> {
    needs_root!();
    let recorded = record(Version::V12_8, 8, "12 unsubscribed")?;
    let (length_ms, unknown_ms) = (recorded.length_ms(), recorded.unknown_ms()?);
    assert!((length_ms - 1..5_000).contains(&unknown_ms), "{unknown_ms} ms, of them {length_ms} profiled");
    assert!(recorded.losses("agent_taken") >= 1, "{:#}", recorded.report["capture"]["losses"]);
    recorded.profile_is_whole();
    Ok(())
}

#[test]
fn the_time_before_a_profile_was_noticed_is_unknown() -> anyhow::Result<()> {
    needs_root!();
    let recorded = record(Version::V12_8, 10, "300")?;
    let (length_ms, unknown_ms) = (recorded.length_ms(), recorded.unknown_ms()?);
    assert!(unknown_ms >= length_ms - 1, "{unknown_ms} of {length_ms} ms");
    assert!(recorded.losses("agent_yielded") >= 1, "{:#}", recorded.report["capture"]["losses"]);
    recorded.profile_is_whole();
    // What only we enable is in it for a flush or two, not for a second.
    let overhead = recorded.profile["counts"]["17"].as_u64().unwrap_or(0);
    assert!(overhead < 10, "{}", recorded.profile);
    Ok(())
}
