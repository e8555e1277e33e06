//! `stallscope flamegraph`.

use std::path::Path;

use stallscope_core::export::flamegraph::{FlamegraphStyle, Hue, write_diff_flamegraph, write_flamegraph};
use stallscope_core::report::text::duration;
use stallscope_core::weights::Weight;

use super::{folded, natural_weight};
use crate::args::FlamegraphArgs;
use crate::failure::{Failure, Outcome};
use crate::files::{Output, Replace, beside, open, output_failure, print};

pub(crate) fn run(args: &FlamegraphArgs) -> Result<Outcome, Failure> {
    let mut inputs: Vec<&Path> = vec![&args.capture];
    inputs.extend(args.against.as_deref());
    let replace = Replace { suffixes: &[".svg"], inputs: &inputs, force: args.force };
    // A name that is refused is refused before a large trace is read.
    let named = args.output.as_ref().map(|path| Output::create(path, &replace)).transpose()?;
    let capture = open(&args.capture)?;
    let weight = args.weight.map_or_else(|| natural_weight(&capture), Weight::from);
    let default = || beside(&args.capture, &format!(".{}.svg", weight.name()));
    let path = args.output.clone().unwrap_or_else(default);
    let mut output = match named {
        Some(output) => output,
        None => Output::create(&path, &replace)?,
    };
    let stacks = folded(&capture, &args.capture, weight)?;
    let mut style = style(weight, &args.capture, stacks.total_ns());
    let total_ns = stacks.total_ns();
    let written = match &args.against {
        Some(before) => {
            let earlier = folded(&open(before)?, before, weight)?;
            style.subtitle.push_str(&format!(
                ", {} before: {}",
                duration(earlier.total_ns()),
                before.display()
            ));
            write_diff_flamegraph(&earlier.without_ids(), &stacks.without_ids(), &style, &mut output)
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

fn style(weight: Weight, capture: &Path, total_ns: u64) -> FlamegraphStyle {
    let name = capture.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
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
        title: format!("{name}: {what}"),
        subtitle: format!("width = {count_name}, {} in all", duration(total_ns)),
        count_name: count_name.to_owned(),
        hue,
    }
}
