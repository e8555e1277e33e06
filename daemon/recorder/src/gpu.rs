//! The agents of a recording: who is followed, what they told, how they ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stallscope_agents::{LAUNCH_STACKS_A_SECOND, Team, Told, Wanted, Why, everything};
use stallscope_cupti_wire::Detached;
use stallscope_schemas::loss::LossCounter;

use crate::assemble::gpu_counter;
use crate::run::Plan;

/// How long the agents may take to rest, all together: one that hangs in CUPTI is left to its own heartbeat.
const REST_WITHIN: Duration = Duration::from_secs(8);

/// What is known of one process's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuProcess {
    /// The process.
    pub pid: u32,
    /// CUPTI's version, such as 130100; 0 where none was attached.
    pub cupti_version: u32,
    /// From the decision to put the agent in until records could flow, and how long it took to rest.
    pub attach: Option<Duration>,
    /// How long it took to rest.
    pub detach: Option<Duration>,
    /// How CUPTI was left in it: removed, or disabled only and why.
    pub left: Option<&'static str>,
    /// Events that it told.
    pub events: u64,
    /// Largest error of a device time, ns.
    pub clock_error_ns: u64,
    /// Why nothing, or not everything, was seen; none where all is well.
    pub refused: Option<String>,
}

/// The agents of one recording.
#[derive(Debug)]
pub(crate) struct Gpus {
    team: Option<Team>,
    processes: BTreeMap<u32, GpuProcess>,
    /// Processes whose agents collect since it was last asked.
    on: Vec<u32>,
    pub(crate) losses: BTreeMap<LossCounter, u64>,
}

impl Gpus {
    /// `launch_stacks`: whether stacks of launches are taken where an agent samples one.
    pub(crate) fn new(plan: &Plan, launch_stacks: bool) -> Self {
        let readable = stallscope_symbols::readable;
        let launch_stacks_a_second = if launch_stacks { LAUNCH_STACKS_A_SECOND } else { 0 };
        let wanted = Wanted { launch_stacks_a_second, ..everything() };
        let team = plan.agent.map(|image| Team::new(image, wanted, readable));
        Self { team, processes: BTreeMap::new(), on: Vec::new(), losses: BTreeMap::new() }
    }

    /// Follows these processes from now on.
    pub(crate) fn follow(&mut self, pids: &[u32]) {
        if let Some(team) = &mut self.team {
            team.follow_all(pids);
        }
    }

    /// Takes in what was told since, and passes on what concerns the capture.
    pub(crate) fn take(&mut self, out: &mut Vec<Told>) {
        let Some(team) = &self.team else { return };
        for told in team.told() {
            note(&mut self.processes, &mut self.losses, &told);
            if let Told::On { pid, .. } = told {
                self.on.push(pid);
            }
            out.push(told);
        }
    }

    /// Processes whose agents have begun to collect since this was last asked.
    pub(crate) fn take_on(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.on)
    }

    /// Whether an agent has collected.
    pub(crate) fn any_on(&self) -> bool {
        self.processes.values().any(|process| process.attach.is_some())
    }

    /// Puts the agents to rest; `meanwhile` goes on with what else is to be done, and is given what they still tell.
    pub(crate) fn rest(&mut self, mut meanwhile: impl FnMut(Vec<Told>)) {
        let Some(team) = &self.team else { return };
        team.ask_to_rest();
        let begun = Instant::now();
        while begun.elapsed() < REST_WITHIN {
            let resting = team.is_at_rest();
            let mut out = Vec::new();
            for told in team.told() {
                note(&mut self.processes, &mut self.losses, &told);
                out.push(told);
            }
            meanwhile(out);
            if resting {
                return;
            }
        }
    }

    /// What became of each process that uses CUDA, or might have.
    pub(crate) fn into_processes(self) -> Vec<GpuProcess> {
        self.processes.into_values().collect()
    }
}

fn note(processes: &mut BTreeMap<u32, GpuProcess>, losses: &mut BTreeMap<LossCounter, u64>, told: &Told) {
    match told {
        Told::Events { pid, events } => entry(processes, *pid).events += events.len() as u64,
        Told::On { pid, attach, cupti_version, .. } => {
            let known = entry(processes, *pid);
            // It may step aside and come again.
            known.attach.get_or_insert(*attach);
            (known.cupti_version, known.refused) = (*cupti_version, None);
        }
        Told::Observed { pid, detach, left, .. } => {
            let known = entry(processes, *pid);
            known.detach = Some(*detach);
            known.left = (*left != Detached::None).then(|| left.name());
        }
        Told::Losses { pid, lost, clock_error_ns } => {
            entry(processes, *pid).clock_error_ns = *clock_error_ns;
            for (why, count) in lost {
                *losses.entry(gpu_counter(*why)).or_default() += count;
            }
        }
        Told::Unseen { .. } | Told::Ended { why: Why::Asked | Why::NoCuda | Why::ProcessEnded, .. } => {}
        Told::Ended { pid, why } => entry(processes, *pid).refused = Some(why.to_string()),
    }
}

fn entry(processes: &mut BTreeMap<u32, GpuProcess>, pid: u32) -> &mut GpuProcess {
    let known = processes.entry(pid).or_default();
    known.pid = pid;
    known
}
