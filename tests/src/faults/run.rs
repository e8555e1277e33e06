//! Runs the cases: a trainer of four ranks each, with its fault, recorded while it runs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use stallscope_core::capture::Capture;
use stallscope_cupti_double::folder::Version;

use super::cases::{CASES, Case, Kind, Means};
use super::inject::{
    ATTACHED_AFTER, Antagonists, Peer, RANKS_NICE, Throttled, run_delay_ns, stopped_meanwhile, unix_ns,
};
use super::row::Row;
use super::score::{FromOutside, Harm, score};
use super::truth::{Dose, Truth};
use super::{Matrix, mpi, summary};
use crate::live::gpu::{GpuJob, double};
use crate::live::lab::json;

/// Ranks of the job.
pub(super) const RANKS: u32 = 4;

/// How long each is recorded.
pub(super) const LENGTH: &str = "5s";

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One dose a fault.
    pub quick: bool,
    /// Only cases whose name contains one of these.
    pub only: Vec<String>,
    /// Only these doses.
    pub doses: Vec<f64>,
    /// Where captures and truth logs are kept; else they are thrown away.
    pub keep: Option<std::path::PathBuf>,
}

/// Runs the matrix.
///
/// # Errors
/// Where nothing can be run here; a wrong answer, or none, is a row.
pub fn run(options: &Options, mut tell: impl FnMut(&Row)) -> anyhow::Result<Matrix> {
    let temporary = tempfile::tempdir()?;
    let libraries = double(temporary.path(), Version::V12_8)?;
    let folder = options.keep.as_deref().unwrap_or(temporary.path());
    let wanted = |case: &&Case| {
        options.only.is_empty() || options.only.iter().any(|part| case.name.contains(part.as_str()))
    };
    let mut rows = Vec::new();
    for case in CASES.iter().filter(wanted) {
        let middle = case.doses.len() / 2;
        let doses = if options.quick { case.doses.get(middle..=middle) } else { Some(case.doses) };
        let asked = |dose: &f64| options.doses.is_empty() || options.doses.contains(dose);
        for (number, &dose) in doses.unwrap_or_default().iter().enumerate().filter(|(_, dose)| asked(dose)) {
            let at = folder.join(format!("{}-{number}", case.name.replace([' ', ':', ','], "-")));
            std::fs::create_dir_all(&at)?;
            let again = |_| one(case, dose, &at, &libraries);
            // Ranks find each other by a port that was free a moment before: now and then somebody else has it by then.
            let row = one(case, dose, &at, &libraries)
                .or_else(again)
                .unwrap_or_else(|why| failed(case, dose, &why));
            tell(&row);
            rows.push(row);
        }
    }
    ensure!(!rows.is_empty(), "no case has such a name; cases: {}", names());
    let (summary, more) = summary::of(&rows);
    Ok(Matrix { summary, more, rows })
}

fn names() -> String {
    CASES.iter().map(|case| case.name).collect::<Vec<_>>().join("; ")
}

/// What cannot be recorded or read is not named either.
fn failed(case: &Case, dose: f64, why: &anyhow::Error) -> Row {
    let top1 = (case.kind == Kind::Late).then_some(false);
    Row { skipped: Some(format!("failed: {why:#}")), top1, ..Row::new(case, dose) }
}

fn one(case: &Case, dose: f64, folder: &Path, libraries: &Path) -> anyhow::Result<Row> {
    let skipped = |why: anyhow::Error| Row { skipped: Some(format!("{why:#}")), ..Row::new(case, dose) };
    match case.means {
        Means::Mpi => Ok(mpi::run(case, dose, folder)?.unwrap_or_else(skipped)),
        Means::MpiLink(link) => Ok(mpi::on_links(case, dose, link, folder)?.unwrap_or_else(skipped)),
        Means::Network(what) => match Peer::new(what) {
            Ok(_peer) => on_gpus(case, dose, folder, libraries, &Peer::arguments(what)),
            Err(why) => Ok(skipped(why)),
        },
        Means::Throttle => match Throttled::obstacle() {
            None => on_gpus(case, dose, folder, libraries, &[]),
            Some(why) => Ok(skipped(anyhow::anyhow!(why))),
        },
        _ => on_gpus(case, dose, folder, libraries, &[]),
    }
}

/// A trainer whose healthy steps are nearly all computation, so that what is lost is the fault's.
fn on_gpus(case: &Case, dose: f64, folder: &Path, libraries: &Path, more: &[String]) -> anyhow::Result<Row> {
    let log = folder.join("truth");
    // Of a run before this one, where they are kept: trainers append.
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let dose_text = dose.to_string();
    let what = if case.kind == Kind::Decoy { "--decoy" } else { "--fault" };
    let every = case.culprits.len().max(1).to_string();
    // Few and long operations: while four ranks launch on two CPUs they are in each other's way.
    let mut arguments = vec!["--layers", "2", "--forward-us", "4000", "--backward-us", "8000"];
    arguments.extend(["--bucket-mib", "4"]);
    // Loaders prepare the next batch while the devices work, not while the ranks launch.
    arguments.extend(["--load-ms", "8"]);
    let begun = folder.join("begun");
    if begun.exists() {
        std::fs::remove_file(&begun)?;
    }
    let begun_text = begun.display().to_string();
    arguments.extend([what, case.fault, "--dose-ms", &dose_text, "--every", &every, "--once", &begun_text]);
    arguments.extend(more.iter().map(String::as_str));
    match case.means {
        Means::Chain => arguments.push("--chain"),
        Means::Buffers => arguments.push("--buffers"),
        _ => {}
    }
    let mut settings = format!("gpus={RANKS}");
    if case.means == Means::Loss {
        settings.push_str(&format!(";fault.drop={:.0}", 100.0 / dose));
    }
    if case.fault.starts_with("malloc-storm@") {
        // As very large allocations take: else what Python does for each call is a good part of the storm.
        settings.push_str(";alloc.ns=2000000");
    }
    let log_text = log.display().to_string();
    let environment = [
        ("STALLSCOPE_DOUBLE_TRUTH", log_text.as_str()),
        ("STALLSCOPE_DOUBLE", settings.as_str()),
        ("GPU_LAUNCH_DIES_WITH_PARENT", "1"),
        // Ahead of what else the machine does, the recorder included: harm is to be the cause, not chance.
        ("GPU_LAUNCH_NICE", RANKS_NICE),
    ];
    let job = GpuJob::start_with(folder, libraries, RANKS, &arguments, &environment)?;
    let capture = folder.join("a.stall").display().to_string();
    let (stops, harm) = recorded(case, dose, &job, &capture, &begun)?;
    drop(job);
    let report: Value = json(&["report", &capture, "--json"])?;
    let mut truth = Truth::read(&log)?;
    truth.doses.extend(stops);
    let opened = Capture::open(std::fs::read(&capture)?)?;
    score(case, dose, (&report, &opened), &truth, harm)
}

/// Records a job while harm is done to it, by itself once a file is there, or from outside; says when each stop was.
fn recorded(
    case: &Case,
    dose: f64,
    job: &GpuJob,
    capture: &str,
    begun: &Path,
) -> anyhow::Result<(Vec<Dose>, Harm)> {
    let pid = job.pid().to_string();
    let record = || json(&["record", "--pid", &pid, "-d", LENGTH, "-o", capture, "--json", "--force"]);
    let rank = case.culprits.first().map_or(0, |culprit| culprit.rank);
    let victim = *job.ranks.get(rank as usize).context("a pid for each rank")?;
    match case.means {
        Means::Stop => {
            let (stops, _) = stopped_meanwhile(victim, dose, record)?;
            let since = stops.first().map_or(i64::MIN, |(from, _)| *from);
            let stops = stops.into_iter().map(|span| Dose::whole(rank, span)).collect();
            Ok((stops, Harm { since, outside: None }))
        }
        Means::Throttle => {
            let start = || Throttled::new(victim, dose);
            Ok((Vec::new(), later(record, start, Throttled::throttled_ns)?))
        }
        Means::Antagonists => {
            let others: Vec<u32> = job.ranks.iter().copied().filter(|pid| *pid != victim).collect();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few processes")]
            let start = || Antagonists::new(victim, &others, dose as u32);
            Ok((Vec::new(), later(record, start, |_| run_delay_ns(victim))?))
        }
        // What the stand-ins are told they do from the begin on.
        _ if case.fault.starts_with("slow-device@") => {
            record().map(|_| (Vec::new(), Harm { since: i64::MIN, outside: None }))
        }
        _ => {
            let start = || Ok(std::fs::write(begun, "")?);
            let Harm { since, .. } = later(record, start, |()| Ok(0))?;
            Ok((Vec::new(), Harm { since, outside: None }))
        }
    }
}

/// Does harm once the recording is under way; says what it took until shortly before the recording's end.
fn later<T: Send, H>(
    record: impl FnOnce() -> anyhow::Result<T> + Send,
    start: impl FnOnce() -> anyhow::Result<H>,
    so_far_ns: impl Fn(&H) -> anyhow::Result<u64>,
) -> anyhow::Result<Harm> {
    std::thread::scope(|scope| {
        let recording = scope.spawn(record);
        std::thread::sleep(ATTACHED_AFTER);
        let (harm, since) = (start()?, unix_ns());
        let (began, before) = (Instant::now(), so_far_ns(&harm)?);
        std::thread::sleep(Duration::from_millis(3500));
        let took = FromOutside { ns: so_far_ns(&harm)?.saturating_sub(before), of: began.elapsed() };
        recording.join().map_err(|_| anyhow::anyhow!("the recording panicked"))??;
        Ok(Harm { since, outside: Some(took) })
    })
}
