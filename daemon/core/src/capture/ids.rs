//! The numbers of one file in the tables of several.
//!
//! Rows name strings, stacks, threads and processes by their places in the tables of the file that holds them. Where files
//! are read together these have other places; a batch is renumbered when it is decoded, so that what is held in memory
//! does not depend on how many files there are.

use stallscope_schemas::record::{
    RecordKind, api_call, block_io, collective, collective_call, connection, counter, cpu_sample,
    device_span, file_io, gpu_op, group_state, host_span, launch_stack, pipeline_op, thread_preempt,
    thread_wait,
};

/// What the values of a column number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refers {
    /// A string.
    String,
    /// A stack.
    Stack,
    /// A thread.
    Thread,
    /// A thread, plus one; 0 is none.
    MaybeThread,
    /// A process, plus one; 0 is none.
    MaybeProcess,
}

/// The columns of a kind that number something.
pub(super) fn references(kind: RecordKind) -> &'static [(u16, Refers)] {
    use Refers::{MaybeProcess, MaybeThread, Stack, String, Thread};
    match kind {
        RecordKind::GpuOp => {
            &[(gpu_op::NAME, String), (gpu_op::LAUNCH_THREAD, Thread), (gpu_op::LAUNCH_NAME, String)]
        }
        RecordKind::ApiCall => &[(api_call::NAME, String)],
        RecordKind::HostSpan => &[(host_span::NAME, String), (host_span::STACK, Stack)],
        RecordKind::Collective => &[(collective::NAME, String), (collective::GROUP, String)],
        RecordKind::DeviceSpan => &[(device_span::NAME, String)],
        RecordKind::ThreadWait => &[
            (thread_wait::CALL, String),
            (thread_wait::OBJECT, String),
            (thread_wait::WAKER, MaybeThread),
            (thread_wait::WAKER_STACK, Stack),
            (thread_wait::STACK, Stack),
            (thread_wait::PREEMPTOR, MaybeThread),
            (thread_wait::PEER, MaybeProcess),
        ],
        RecordKind::ThreadPreempt => &[(thread_preempt::PREEMPTOR, MaybeThread)],
        RecordKind::CpuSample => &[(cpu_sample::STACK, Stack)],
        RecordKind::CollectiveCall => &[
            (collective_call::NAME, String),
            (collective_call::DATATYPE, String),
            (collective_call::REDUCTION, String),
            (collective_call::GROUP, String),
            (collective_call::STACK, Stack),
        ],
        RecordKind::BlockIo => &[(block_io::DEVICE, String), (block_io::FILE, String)],
        RecordKind::FileIo => &[(file_io::OBJECT, String)],
        RecordKind::Connection => &[(connection::NAME, String)],
        RecordKind::Counter => &[(counter::NAME, String)],
        RecordKind::LaunchStack => &[(launch_stack::STACK, Stack)],
        RecordKind::PipelineOp => &[(pipeline_op::NAME, String)],
        RecordKind::GroupState => &[
            (group_state::GROUP, String),
            (group_state::DESCRIPTION, String),
            (group_state::MEMBERS, String),
        ],
        RecordKind::LossWindow
        | RecordKind::StreamWait
        | RecordKind::ThreadSpan
        | RecordKind::PageFaults
        | RecordKind::ThreadLoss
        | RecordKind::DeviceWindow => &[],
    }
}

/// Where the rows of one file's tables stand in those of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    /// By a string's number in the file.
    pub(super) strings: Vec<u32>,
    /// Added to a stack's number, other than that of the empty one.
    pub(super) stacks: Numbers,
    pub(super) threads: Numbers,
    pub(super) processes: Numbers,
}

/// Consecutive numbers that have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Added to each.
    pub(super) base: u64,
    /// How many there are: others belong to nobody, and must not become those of another file.
    pub(super) count: u64,
}

impl Numbers {
    pub(super) fn of(self, number: u64) -> u64 {
        if number < self.count { number.saturating_add(self.base) } else { u32::MAX.into() }
    }
}

impl Ids {
    fn of(&self, refers: Refers, value: u64) -> u64 {
        let maybe =
            |numbers: Numbers| value.checked_sub(1).map_or(0, |number| numbers.of(number).saturating_add(1));
        match refers {
            Refers::String => {
                let place = usize::try_from(value).ok().and_then(|at| self.strings.get(at));
                place.copied().unwrap_or(u32::MAX).into()
            }
            Refers::Stack if value == 0 => 0,
            Refers::Stack => self.stacks.of(value),
            Refers::Thread => self.threads.of(value),
            Refers::MaybeThread => maybe(self.threads),
            Refers::MaybeProcess => maybe(self.processes),
        }
    }

    /// Renumbers the decoded columns of a kind.
    pub(super) fn renumber(&self, kind: RecordKind, columns: &mut [Vec<u64>]) {
        for &(column, refers) in references(kind) {
            for value in columns.get_mut(usize::from(column)).into_iter().flatten() {
                *value = self.of(refers, *value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::RecordKind;

    use super::{Ids, Numbers, Refers, references};

    #[test]
    fn every_column_whose_description_says_so_is_renumbered() {
        // The descriptions are the definition of the format.
        let sources = [
            include_str!("../../../../schemas/src/record/mod.rs"),
            include_str!("../../../../schemas/src/record/host.rs"),
            include_str!("../../../../schemas/src/record/pipeline.rs"),
        ];
        let says = |text: &str, what: &str| text.matches(what).count();
        let count = |what: &str| sources.iter().map(|source| says(source, what)).sum::<usize>();
        let all: Vec<Refers> =
            RecordKind::ALL.iter().flat_map(|&kind| references(kind)).map(|r| r.1).collect();
        let listed = |refers: &[Refers]| all.iter().filter(|r| refers.contains(r)).count();
        assert_eq!(listed(&[Refers::String]), count("(string id)"));
        assert_eq!(listed(&[Refers::Stack]), count("(stack id)"));
        assert_eq!(listed(&[Refers::Thread]), count("(thread id of the capture)"));
        assert_eq!(listed(&[Refers::MaybeThread]), count("WAKER = ") + count("PREEMPTOR = "));
        assert_eq!(listed(&[Refers::MaybeProcess]), count("(process id plus one)"));
    }

    #[test]
    fn a_number_that_the_file_does_not_have_is_nobodys() {
        let threads = Numbers { base: 10, count: 3 };
        let ids = Ids { strings: vec![0, 7], threads, ..Ids::default() };
        assert_eq!(ids.of(Refers::Thread, 2), 12);
        assert_eq!(ids.of(Refers::Thread, 3), u64::from(u32::MAX));
        assert_eq!((ids.of(Refers::MaybeThread, 0), ids.of(Refers::MaybeThread, 1)), (0, 11));
        assert_eq!((ids.of(Refers::String, 1), ids.of(Refers::String, 2)), (7, u64::from(u32::MAX)));
        assert_eq!(ids.of(Refers::Stack, 0), 0);
    }
}
