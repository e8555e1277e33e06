//! Runs a job until nothing moves any more.

use super::{Fault, Group, Kind, Layout, Scenario};

/// Steps of the program.
const STEPS: usize = 3;
/// Microbatches of a step.
const MICROBATCHES: usize = 2;
/// Layers of a stage.
const LAYERS: usize = 2;
/// Calls that a host makes before it notices that its device has failed.
const NOTICED_AFTER: usize = 3;

/// What a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Collective {
        kind: Kind,
        name: &'static str,
        elements: u64,
    },
    Send {
        to: u32,
    },
    Receive {
        from: u32,
    },
    /// The host waits for its device.
    Wait,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its device has not come to it.
    Scheduled,
    /// Its device is in it.
    Started,
    /// It is over.
    Completed,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Position of the group.
    pub group: usize,
    /// Count of collectives on the group.
    pub collectives: u64,
    /// Count of transfers on the group.
    pub transfers: u64,
    /// Name, without the library and the ranks.
    pub name: &'static str,
    /// The other rank.
    pub peer: Option<u32>,
    /// Elements.
    pub elements: u64,
    /// When it was made, ns.
    pub at_ns: u64,
    /// How far it has come.
    pub state: State,
}

/// A rank when nothing moves any more.
#[derive(Clone, Debug, Default)]
pub struct Rank {
    /// Its calls.
    pub calls: Vec<Call>,
    /// Whether it came to its fault.
    pub faulty: bool,
    next: usize,
    device_failed: bool,
    host_stopped: bool,
    stop_at_call: Option<usize>,
    ended: usize,
}

/// A job that has come to rest.
#[derive(Clone, Debug)]
pub struct Job {
    /// How it is split.
    pub layout: Layout,
    /// Groups.
    pub groups: Vec<Group>,
    /// Ranks.
    pub ranks: Vec<Rank>,
    /// What went wrong.
    pub fault: Fault,
}

impl Job {
    /// Ranks that were at fault and came to it before others kept them.
    #[must_use]
    pub fn culprits(&self) -> Vec<u32> {
        let numbered = (0u32..).zip(&self.ranks);
        numbered.filter(|(_, rank)| rank.faulty).map(|(number, _)| number).collect()
    }
}

/// The program of a rank.
fn program(layout: Layout, rank: u32) -> Vec<Item> {
    let (_, _, stage) = layout.place(rank);
    let stride = layout.tensor * layout.data;
    let (first, last) = (stage == 0, stage + 1 == layout.pipeline);
    let mut items = Vec::new();
    let collective = |kind, name, elements| Item::Collective { kind, name, elements };
    for _ in 0..STEPS {
        for _ in 0..MICROBATCHES {
            if !first {
                items.push(Item::Receive { from: rank - stride });
            }
            for _ in 0..LAYERS {
                items.push(collective(Kind::Tensor, "_all_gather_base", 4096));
                items.push(collective(Kind::Stage, "all_to_all", 512));
                items.push(collective(Kind::Stage, "all_to_all", 1024));
                items.push(collective(Kind::Tensor, "_reduce_scatter_base", 8192));
            }
            if !last {
                items.push(Item::Send { to: rank + stride });
            }
        }
        items.push(Item::Wait);
        for _ in 0..MICROBATCHES {
            if !last {
                items.push(Item::Receive { from: rank + stride });
            }
            for _ in 0..LAYERS {
                items.push(collective(Kind::Tensor, "_all_gather_base", 2048));
                items.push(collective(Kind::Stage, "all_to_all", 256));
                items.push(collective(Kind::Tensor, "_reduce_scatter_base", 4096));
            }
            if !first {
                items.push(Item::Send { to: rank - stride });
            }
        }
        items.push(collective(Kind::Data, "all_reduce", 1 << 20));
        items.push(collective(Kind::World, "all_reduce", 1));
        items.push(Item::Wait);
    }
    items
}

/// Whether a fault may be put at an item of a rank's program: where others go on to something of the same group.
#[must_use]
pub fn places(layout: Layout, rank: u32, kinds: &[Kind]) -> Vec<usize> {
    let items = program(layout, rank);
    let fits = |item: &Item| matches!(item, Item::Collective { kind, .. } if kinds.contains(kind));
    items.iter().enumerate().filter(|(_, item)| fits(item)).map(|(at, _)| at).collect()
}

/// Runs a scenario to where nothing moves any more, or to its end.
#[must_use]
pub fn run(scenario: &Scenario) -> Job {
    let layout = scenario.layout;
    let groups = layout.groups();
    let programs: Vec<Vec<Item>> = (0..layout.world()).map(|rank| program(layout, rank)).collect();
    let mut job = Job { layout, ranks: vec![Rank::default(); programs.len()], groups, fault: scenario.fault };
    let mut now_ns = 1_700_000_000_000_000_000u64;
    loop {
        let mut moved = false;
        for (rank, items) in (0u32..).zip(&programs) {
            now_ns += 1_000;
            moved |= host(&mut job, scenario, rank, items, now_ns);
        }
        while devices(&mut job) {
            moved = true;
        }
        if !moved {
            return job;
        }
    }
}

fn index(rank: u32) -> usize {
    usize::try_from(rank).unwrap_or(usize::MAX)
}

/// One step of a host: one item, if nothing keeps it.
fn host(job: &mut Job, scenario: &Scenario, rank: u32, items: &[Item], now_ns: u64) -> bool {
    let layout = job.layout;
    let state = &mut job.ranks[index(rank)];
    let Some(item) = items.get(state.next) else { return false };
    if state.host_stopped || state.stop_at_call.is_some_and(|at| state.calls.len() >= at) {
        return false;
    }
    let mut item = *item;
    let fault = scenario.ranks.iter().position(|&r| r == rank).map(|i| scenario.at[i]);
    if fault == Some(state.next) {
        state.faulty = scenario.fault != Fault::None;
        match scenario.fault {
            Fault::None => {}
            Fault::HostStops | Fault::Killed => {
                state.host_stopped = true;
                // A device whose process is gone takes part in nothing.
                state.device_failed = scenario.fault == Fault::Killed;
                return true;
            }
            Fault::DeviceFails => {
                state.stop_at_call = Some(state.calls.len() + NOTICED_AFTER);
                state.device_failed = true;
            }
            Fault::DeviceSleeps => state.device_failed = true,
            Fault::OtherSize => {
                if let Item::Collective { elements, .. } = &mut item {
                    *elements += 7;
                }
            }
            Fault::OtherCall => {
                if let Item::Collective { name, .. } = &mut item {
                    *name = "broadcast";
                }
            }
        }
    }
    if item == Item::Wait {
        if state.calls.iter().any(|call| call.state != State::Completed) {
            return false;
        }
        state.next += 1;
        return true;
    }
    let (kind, name, peer, elements) = match item {
        Item::Collective { kind, name, elements } => (kind, name, None, elements),
        Item::Send { to } => (Kind::Pipeline, "send", Some(to), 1 << 16),
        Item::Receive { from } => (Kind::Pipeline, "recv", Some(from), 1 << 16),
        Item::Wait => return false,
    };
    let group = layout.group(&job.groups, kind, rank);
    let state = &mut job.ranks[index(rank)];
    let earlier = || state.calls.iter().filter(|call| call.group == group);
    let transfers = earlier().filter(|call| call.peer.is_some()).count() as u64;
    let collectives = earlier().filter(|call| call.peer.is_none()).count() as u64;
    state.calls.push(Call {
        group,
        collectives: collectives + u64::from(peer.is_none()),
        transfers: transfers + u64::from(peer.is_some()),
        name,
        peer,
        elements,
        at_ns: now_ns,
        state: State::Scheduled,
    });
    state.next += 1;
    true
}

/// The call that a device is at.
fn at(job: &Job, rank: u32) -> Option<&Call> {
    let rank = &job.ranks[index(rank)];
    rank.calls.get(rank.ended)
}

/// Whether all members of a call are at it, with the same arguments.
fn complete(job: &Job, rank: u32, call: &Call) -> bool {
    let there = |other: u32| {
        let Some(theirs) = at(job, other) else { return false };
        let same = theirs.group == call.group && call.peer.is_some() == theirs.peer.is_some();
        match call.peer {
            Some(peer) => same && other == peer && theirs.peer == Some(rank) && theirs.name != call.name,
            None => {
                same && theirs.collectives == call.collectives
                    && (theirs.name, theirs.elements) == (call.name, call.elements)
            }
        }
    };
    match call.peer {
        Some(peer) => there(peer) && can_run(job, peer),
        None => job.groups[call.group]
            .ranks
            .iter()
            .all(|&other| (other == rank || there(other)) && can_run(job, other)),
    }
}

/// A device that fails still takes part in what it is at: it is the end that it does not tell.
fn can_run(job: &Job, rank: u32) -> bool {
    let state = &job.ranks[index(rank)];
    !state.device_failed
        || job.fault == Fault::DeviceFails
            && state.calls[..state.ended].iter().all(|c| c.state == State::Completed)
}

/// Ends one operation that can be ended.
fn devices(job: &mut Job) -> bool {
    for rank in 0..job.layout.world() {
        let Some(&call) = at(job, rank) else { continue };
        if !can_run(job, rank) {
            continue;
        }
        job.ranks[index(rank)].begin();
        if !complete(job, rank, &call) {
            continue;
        }
        let members = match call.peer {
            Some(peer) => vec![rank, peer],
            None => job.groups[call.group].ranks.clone(),
        };
        for member in members {
            job.ranks[index(member)].end();
        }
        return true;
    }
    false
}

impl Rank {
    fn begin(&mut self) {
        if let Some(call) = self.calls.get_mut(self.ended) {
            call.state = State::Started;
        }
    }

    fn end(&mut self) {
        if let Some(call) = self.calls.get_mut(self.ended)
            && !self.device_failed
        {
            call.state = State::Completed;
        }
        self.ended += 1;
    }
}
