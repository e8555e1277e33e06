//! `stallscope record`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use stallscope_core::report::text::{duration, printable};
use stallscope_ebpf::{ProbeId, Settings, Standing};
use stallscope_jobs::{Host, Job, Target};
use stallscope_recorder::{Ended, GpuProcess, Plan, Progress, RecordError, Summary, record};

use super::launch::{self, Launched};
use crate::args::RecordArgs;
use crate::failure::{Failure, Outcome};
use crate::files::{Replace, ResumableOutput, print, recording_failure, writer_name};
use crate::progress::Ticker;

pub(crate) fn run(args: &RecordArgs) -> Result<Outcome, Failure> {
    let agent = (!args.no_gpu).then_some(stallscope_cupti_image::AGENT);
    let mut launched = match args.command.as_slice() {
        [] => None,
        command => Some(Launched::hold(command, agent)?),
    };
    let host = Host::scan("/proc".as_ref()).map_err(|source| Failure::Proc { source })?;
    let target = match &launched {
        Some(launched) => Target::Pid { pids: vec![launched.pid()], only: true },
        None => target(args)?,
    };
    let mut selection = target.resolve(&host)?;
    if let Some(launched) = &launched {
        selection.notes.extend(launched.note.clone());
        // What waits is a shell.
        for job in &mut selection.jobs {
            job.name = launch::name(&args.command);
            for rank in &mut job.ranks {
                rank.comm.clone_from(&job.name);
            }
        }
    }
    let path = args.output.clone().unwrap_or_else(|| default_output(selection.jobs.first()));
    let output =
        ResumableOutput::prepare(&path, &Replace { suffixes: &[".stall"], inputs: &[], force: args.force })?;
    let plan = Plan {
        selection,
        settings: settings(args),
        duration: args.duration,
        labels: args.label.clone(),
        writer: writer_name(),
        agent,
    };
    if !args.json {
        announce(&plan);
    }
    let stop = stop_on_signals()?;
    let mut ticker = Ticker::new("recording");
    let called = Instant::now();
    let mut show = |progress: Progress| {
        if let Some(launched) = &mut launched {
            launched.go();
        }
        // The first call: from now on events flow.
        if progress.elapsed.is_zero() && !args.json {
            announce_attached(&plan, called.elapsed());
        }
        ticker.update(&format!(
            "{} · {} records · {} threads",
            duration(u64::try_from(progress.elapsed.as_nanos()).unwrap_or(u64::MAX)),
            progress.records,
            progress.threads
        ));
    };
    let done = record(&plan, &host, output, &stop, &mut show);
    ticker.finish();
    let done = done.map_err(|error| match error {
        RecordError::Write(source) => recording_failure(&path, source),
        other => Failure::Record(other),
    });
    let summary = match done {
        Ok(summary) => summary,
        Err(failure) => {
            let Some(command) = launched.filter(Launched::begun) else { return Err(failure) };
            // It goes on, and the terminal is its own until it ends.
            failure.say();
            command.wait().map_err(|source| Failure::Start { source })?;
            return Ok(Outcome::Failed(failure.code()));
        }
    };
    let text = if args.json { json_text(&path, &plan, &summary) } else { plain_text(&path, &summary) };
    print(&text)?;
    let Some(launched) = launched else { return Ok(Outcome::Done) };
    let status = launched.wait().map_err(|source| Failure::Start { source })?;
    Ok(Outcome::Command(launch::code(status)))
}

fn target(args: &RecordArgs) -> Result<Target, Failure> {
    let which = &args.target;
    if let Some(job) = &which.job {
        return Ok(Target::Job(job.clone()));
    }
    if let Some(container) = &which.container {
        return Ok(Target::Container(container.clone()));
    }
    if let Some(pod) = &which.pod {
        return Ok(pod.clone());
    }
    if let Some(slurm) = &which.slurm {
        return Ok(slurm.clone());
    }
    Ok(Target::Pid { pids: which.pid.clone(), only: args.only })
}

fn settings(args: &RecordArgs) -> Settings {
    let mut settings = Settings { stacks: !args.no_stacks, ..Settings::default() };
    if let Some(probes) = &args.probes {
        settings.probes.retain(|p| probes.contains(p));
        settings.probes.extend(probes.iter().filter(|p| matches!(p, ProbeId::Sched | ProbeId::Launches)));
    }
    if args.launch_stacks {
        settings.probes.push(ProbeId::Launches);
    }
    if let Some(threshold) = args.stack_threshold {
        settings.stack_threshold_ns = u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX);
    }
    settings
}

/// `job.stall` in this folder, by the name of the job.
fn default_output(job: Option<&Job>) -> PathBuf {
    let name = job.map_or("run", |job| job.name.as_str());
    let safe: String =
        name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    PathBuf::from(format!("{}.stall", safe.trim_start_matches('.')))
}

fn announce(plan: &Plan) {
    for job in &plan.selection.jobs {
        let pids: Vec<String> = job.ranks.iter().take(8).map(|r| r.process.pid.to_string()).collect();
        let more = if job.ranks.len() > 8 { ", …" } else { "" };
        let ranks =
            if job.ranks.len() == 1 { "1 process".to_owned() } else { format!("{} ranks", job.ranks.len()) };
        eprintln!("attaching to {} ({ranks}: pid {}{more})", printable(&job.name), pids.join(", "));
    }
    for note in &plan.selection.notes {
        eprintln!("note: {}", printable(note));
    }
}

fn announce_attached(plan: &Plan, attach: Duration) {
    let ns = |d: Duration| duration(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
    let until = match plan.duration {
        Some(time) => format!("for {}", ns(time)),
        None => "until the job ends or Ctrl-C".to_owned(),
    };
    eprintln!("recording (attached in {}) {until}", ns(attach));
}

/// Ctrl-C, SIGTERM and SIGHUP end the recording as if its time were over; a second one ends the program.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::SeqCst) {
            // Nothing is pinned: the kernel takes the probes off with the process.
            #[allow(clippy::exit, reason = "the user asked twice")]
            std::process::exit(130);
        }
    })
    .map_err(|error| Failure::Signals(error.to_string()))?;
    Ok(stop)
}

fn ended(ended: Ended) -> &'static str {
    match ended {
        Ended::Time => "the time was over",
        Ended::Asked => "stopped",
        Ended::JobEnded => "the job ended",
    }
}

fn plain_text(path: &std::path::Path, summary: &Summary) -> String {
    let mut out = String::new();
    let ns = |d: Duration| duration(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}: {} of {} threads, {} records ({}; attached in {}, detached in {})",
        path.display(),
        ns(summary.elapsed),
        summary.threads,
        summary.records,
        ended(summary.ended),
        ns(summary.attach),
        ns(summary.detach)
    );
    for (probe, standing) in &summary.standings {
        match standing {
            Standing::Works => {}
            Standing::Degraded { lost, remedy } => {
                let _ = writeln!(out, "probe {probe} is degraded: {lost} ({remedy})");
            }
            Standing::Missing { reason, remedy } => {
                let _ = writeln!(out, "probe {probe} did not run: {reason} ({remedy})");
            }
        }
    }
    for gpu in &summary.gpus {
        let _ = writeln!(out, "{}", gpu_text(gpu));
    }
    for (loss, count) in &summary.losses {
        let word = if loss.is_loss() { "lost" } else { "doubtful" };
        let _ = writeln!(out, "{word}: {count} × {}: {}", loss.name(), loss.explanation());
    }
    let _ = writeln!(out, "next: stallscope report {}", path.display());
    out
}

/// `13.1` of 130100. Before 13.0 CUPTI only counted its versions: 26 came with CUDA 12.8.
fn cupti_version(version: u32) -> String {
    if version < 10_000 {
        format!("API {version}")
    } else {
        format!("{}.{}", version / 10_000, version / 100 % 100)
    }
}

/// What was seen of the GPU work of a process.
fn gpu_text(gpu: &GpuProcess) -> String {
    let ns = |d: Duration| duration(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
    let mut text = format!("GPU work of pid {}: ", gpu.pid);
    if let Some(attach) = gpu.attach {
        let _ = write!(
            text,
            "{} events, CUPTI {}, agent attached in {}, clock ± {}",
            gpu.events,
            cupti_version(gpu.cupti_version),
            ns(attach),
            duration(gpu.clock_error_ns)
        );
    }
    if let Some(why) = &gpu.refused {
        let _ = write!(
            text,
            "{}not seen: {}",
            if gpu.attach.is_some() { "; from then on " } else { "" },
            printable(why)
        );
    }
    text
}

fn json_text(path: &std::path::Path, plan: &Plan, summary: &Summary) -> String {
    let probes: Vec<_> = summary
        .standings
        .iter()
        .map(|(probe, standing)| match standing {
            Standing::Works => json!({"probe": probe.name(), "standing": "works"}),
            Standing::Degraded { lost, remedy } => {
                json!({"probe": probe.name(), "standing": "degraded", "lost": lost, "remedy": remedy})
            }
            Standing::Missing { reason, remedy } => {
                json!({"probe": probe.name(), "standing": "missing", "reason": reason, "remedy": remedy})
            }
        })
        .collect();
    let losses: serde_json::Map<_, _> =
        summary.losses.iter().map(|(loss, count)| (loss.name().to_owned(), (*count).into())).collect();
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let value = json!({
        "capture": path,
        "jobs": plan.selection.jobs.iter().map(|job| json!({
            "id": job.id,
            "name": job.name,
            "ranks": job.ranks.iter().map(|r| json!({"rank": r.rank, "pid": r.process.pid})).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "ended": match summary.ended { Ended::Time => "time", Ended::Asked => "asked", Ended::JobEnded => "job_ended" },
        "elapsed_ns": ns(summary.elapsed),
        "attach_ns": ns(summary.attach),
        "detach_ns": ns(summary.detach),
        "records": summary.records,
        "threads": summary.threads,
        "probes": probes,
        "gpus": summary.gpus.iter().map(|gpu| json!({
            "pid": gpu.pid,
            "cupti_version": (gpu.cupti_version > 0).then(|| cupti_version(gpu.cupti_version)),
            "attach_ns": gpu.attach.map(ns),
            "detach_ns": gpu.detach.map(ns),
            "cupti_left": gpu.left,
            "events": gpu.events,
            "clock_error_ns": gpu.clock_error_ns,
            "refused": gpu.refused,
        })).collect::<Vec<_>>(),
        "losses": losses,
        "notes": summary.notes,
    });
    format!("{value:#}\n")
}
