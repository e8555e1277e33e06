//! The sections: what each is for, how long it may take, which questions of docs/gpu/OPEN.md it answers.
//!
//! What always holds: riskiest first, so that a run that is cut short has answered what matters most; each stands
//! alone; all their limits and that of the facts together are at most nine minutes.

use std::time::Duration;

use super::context::Context;
use super::sections;

/// All sections together, with the facts.
pub const ALL_WITHIN: Duration = Duration::from_mins(9);
/// What is to be known of the machine before anything is tried.
pub const FACTS_WITHIN: Duration = Duration::from_secs(45);

/// A section.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is for.
    pub title: &'static str,
    /// How long it may take, s.
    pub limit_s: u64,
    /// Questions that it may answer.
    pub questions: &'static [u32],
    /// Whether it needs a GPU (or the double).
    pub on_gpu: bool,
    /// Does it.
    pub run: fn(&mut Context) -> anyhow::Result<()>,
}

impl Section {
    /// How long it may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit_s)
    }
}

/// All of them, in their order.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "attach-driver",
        title: "Late attach to a loop on the driver's API, without and with CUDA graphs",
        limit_s: 50,
        questions: &[1, 2, 3],
        on_gpu: true,
        run: sections::attach::driver,
    },
    Section {
        name: "attach-torch",
        title: "Late attach to a PyTorch loop, without and with CUDA graphs",
        limit_s: 60,
        questions: &[1, 2, 3, 4],
        on_gpu: true,
        run: sections::attach::torch,
    },
    Section {
        name: "cycles",
        title: "Attach and detach 100 times",
        limit_s: 50,
        questions: &[2],
        on_gpu: true,
        run: sections::cycles::run,
    },
    Section {
        name: "profiler",
        title: "The job's own profiler before, during and after an attachment",
        limit_s: 50,
        questions: &[10],
        on_gpu: true,
        run: sections::profiler::run,
    },
    Section {
        name: "times",
        title: "Kernel times against CUDA events and torch.profiler",
        limit_s: 35,
        questions: &[9],
        on_gpu: true,
        run: sections::times::run,
    },
    Section {
        name: "cost-launch",
        title: "Cost per launch, kernels of 2 µs back to back",
        limit_s: 55,
        questions: &[7],
        on_gpu: true,
        run: sections::cost::launches,
    },
    Section {
        name: "cost-model",
        title: "Cost on a model that is trained",
        limit_s: 45,
        questions: &[],
        on_gpu: true,
        run: sections::cost::model,
    },
    Section {
        name: "nccl",
        title: "Two NCCL ranks on one GPU",
        limit_s: 30,
        questions: &[12],
        on_gpu: true,
        run: sections::nccl::run,
    },
    Section {
        name: "memory",
        title: "Memory over ten million launches",
        limit_s: 90,
        questions: &[11],
        on_gpu: true,
        run: sections::memory::run,
    },
    Section {
        name: "launch",
        title: "Started with the agent instead of attached to; CUPTI before cuInit",
        limit_s: 20,
        questions: &[5, 6, 8],
        on_gpu: true,
        run: sections::launch::run,
    },
    Section {
        name: "kernel",
        title: "What this kernel lets eBPF see",
        limit_s: 10,
        questions: &[],
        on_gpu: false,
        run: sections::kernel::run,
    },
];

/// The sections that were asked for, in the order of the plan; all where none was.
///
/// # Errors
/// Names that are no section's.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Section>, String> {
    if let Some(unknown) = names.iter().find(|name| SECTIONS.iter().all(|s| s.name != **name)) {
        let known: Vec<&str> = SECTIONS.iter().map(|s| s.name).collect();
        return Err(format!("there is no section {unknown}; there are {}", known.join(", ")));
    }
    Ok(SECTIONS.iter().filter(|s| names.is_empty() || names.iter().any(|n| n == s.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::{ALL_WITHIN, FACTS_WITHIN, SECTIONS, Section, chosen};
    use std::time::Duration;

    #[test]
    fn everything_fits_into_nine_minutes() {
        let sum: Duration = SECTIONS.iter().map(Section::limit).sum();
        assert!(sum + FACTS_WITHIN <= ALL_WITHIN, "{sum:?} and {FACTS_WITHIN:?}");
    }

    #[test]
    fn sections_come_in_their_order_whatever_the_order_of_the_names() {
        let names = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|&n| n.to_owned()).collect();
            chosen(&asked).map(|all| all.iter().map(|s| s.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["kernel", "cycles"]), Ok(vec!["cycles", "kernel"]));
        assert_eq!(names(&[]).map(|all| all.len()), Ok(SECTIONS.len()));
        assert!(names(&["cycle"]).is_err_and(|why| why.contains("no section cycle;")));
    }
}
