//! `stallscope flamegraph`.

use std::collections::BTreeMap;
use std::path::Path;

use stallscope_core::capture::Capture;
use stallscope_core::export::flamegraph::{FlamegraphStyle, Hue, write_diff_flamegraph, write_flamegraph};
use stallscope_core::folded::Folded;
use stallscope_core::ledger::Options;
use stallscope_core::report::text::duration;
use stallscope_core::weights::{Weight, by_rank, median};
use stallscope_schemas::record::RecordKind;

use super::{folded, gpu_ledgers, natural_weight};
use crate::args::FlamegraphArgs;
use crate::failure::{Failure, Outcome};
use crate::files::{CaptureFile, Output, Replace, beside, open, open_together, output_failure, print};

/// What stands for the rank in the middle in place of a capture's name.
const MEDIAN: &str = "median";

pub(crate) fn run(args: &FlamegraphArgs) -> Result<Outcome, Failure> {
    let is_median = args.against.as_deref() == Some(Path::new(MEDIAN));
    let earlier = args.against.as_deref().filter(|_| !is_median);
    let mut inputs: Vec<&Path> = vec![&args.capture];
    inputs.extend(args.more.iter().map(|path| path.as_path()));
    inputs.extend(earlier);
    let replace = Replace { suffixes: &[".svg"], inputs: &inputs, force: args.force };
    // A name that is refused is refused before a large trace is read.
    let named = args.output.as_ref().map(|path| Output::create(path, &replace)).transpose()?;
    let capture = open_together(&args.capture, &args.more)?;
    let weight = args.weight.map_or_else(|| natural_weight(&capture), Weight::from);
    let of_rank = args.rank.map_or_else(String::new, |rank| format!(".rank{rank}"));
    let default = || beside(&args.capture, &format!(".{}{of_rank}.svg", weight.name()));
    let path = args.output.clone().unwrap_or_else(default);
    let mut output = match named {
        Some(output) => output,
        None => Output::create(&path, &replace)?,
    };
    let (stacks, before) = match args.rank {
        Some(rank) => {
            let mut ranks = Ranks::of(&capture, &args.capture, weight)?;
            let before = match earlier {
                Some(path) => {
                    let stacks = Ranks::of(&open(path)?, path, weight)?.take(rank)?;
                    Some((stacks, format!("before: {}", path.display())))
                }
                None if is_median => {
                    ranks.get(rank)?;
                    Some((ranks.median()?, format!("the median of {} ranks", ranks.stacks.len())))
                }
                None => None,
            };
            (ranks.take(rank)?, before)
        }
        None => {
            let stacks = folded(&capture, &args.capture, weight)?;
            match earlier {
                Some(path) => {
                    let before = folded(&open(path)?, path, weight)?.without_ids();
                    (stacks.without_ids(), Some((before, format!("before: {}", path.display()))))
                }
                None => (stacks, None),
            }
        }
    };
    if weight == Weight::Wait && stacks.total_ns() == 0 && !capture.keys(RecordKind::GpuOp).is_empty() {
        let what =
            "ranks on CPUs that wait; of jobs on GPUs there are the weights gpu-idle, gpu-wait and off-cpu";
        return Err(Failure::Nothing { path: args.capture.clone(), what });
    }
    let mut style = style(weight, &args.capture, args.rank, stacks.total_ns());
    let total_ns = stacks.total_ns();
    let written = match before {
        Some((before, what)) => {
            style.subtitle.push_str(&format!(", {} {what}", duration(before.total_ns())));
            write_diff_flamegraph(&before, &stacks, &style, &mut output)
        }
        None => write_flamegraph(&stacks, &style, &mut output),
    };
    written.map_err(|e| output_failure(&path, e))?;
    output.commit()?;
    if path != Path::new("-") {
        print(&format!("{}: {} of {}\n", path.display(), duration(total_ns), style.count_name))?;
    }
    Ok(Outcome::Done)
}

/// What each rank of a capture lost.
struct Ranks<'a> {
    path: &'a Path,
    stacks: BTreeMap<u32, Folded>,
}

impl<'a> Ranks<'a> {
    fn of(capture: &Capture<CaptureFile>, path: &'a Path, weight: Weight) -> Result<Self, Failure> {
        if !matches!(weight, Weight::GpuIdle | Weight::GpuWait) {
            let what = "--rank is for the weights gpu-idle and gpu-wait";
            return Err(Failure::Options { what, advice: "add --weight gpu-idle or --weight gpu-wait" });
        }
        let ledgers = gpu_ledgers(capture, path, Options::default())?;
        let stacks = by_rank(weight, &ledgers, capture.tables()).unwrap_or_default();
        Ok(Self { path, stacks })
    }

    fn no_rank(&self, rank: u32) -> Failure {
        let has = match (self.stacks.first_key_value(), self.stacks.last_key_value()) {
            (None, _) | (_, None) => "none whose rank is known".to_owned(),
            (Some((first, _)), Some((last, _))) if first == last => format!("rank {first}"),
            (Some((first, _)), Some((last, _))) => {
                format!("{} from {first} to {last}", self.stacks.len())
            }
        };
        Failure::NoRank { path: self.path.to_owned(), rank, has }
    }

    fn get(&self, rank: u32) -> Result<&Folded, Failure> {
        self.stacks.get(&rank).ok_or_else(|| self.no_rank(rank))
    }

    fn take(&mut self, rank: u32) -> Result<Folded, Failure> {
        self.stacks.remove(&rank).ok_or_else(|| self.no_rank(rank))
    }

    fn median(&self) -> Result<Folded, Failure> {
        if self.stacks.len() < 2 {
            return Err(Failure::OneRank(self.path.to_owned()));
        }
        Ok(median(self.stacks.values()))
    }
}

fn style(weight: Weight, capture: &Path, rank: Option<u32>, total_ns: u64) -> FlamegraphStyle {
    let name = capture.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let of = rank.map_or_else(String::new, |rank| format!(", rank {rank}"));
    let (what, count_name, hue) = match weight {
        Weight::Gpu => ("GPU time, by the host stack that launched it", "GPU time", Hue::Busy),
        Weight::GpuIdle => ("idle GPU time, by what the host did meanwhile", "idle GPU time", Hue::Idle),
        Weight::GpuWait => {
            ("GPU time lost to late ranks, by what made them late", "GPU time waited", Hue::Waiting)
        }
        Weight::Cpu => ("host time, by stack", "host time", Hue::Host),
        Weight::OffCpu => ("time off the CPU, by stack", "time off the CPU", Hue::Idle),
        Weight::Wait => ("waits, by stack and by who ended them", "waiting time", Hue::Waiting),
    };
    FlamegraphStyle {
        title: format!("{name}{of}: {what}"),
        subtitle: format!("width = {count_name}, {} in all", duration(total_ns)),
        count_name: count_name.to_owned(),
        hue,
    }
}
