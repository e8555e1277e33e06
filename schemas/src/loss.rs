//! Everything that can be lost on the way from a probe or a foreign file to a report, with a stable number and name.
//!
//! A counter is never renumbered or reused: captures written years apart are compared.

macro_rules! loss_counters {
    ($($id:literal $variant:ident $name:literal $doc:literal;)*) => {
        /// A reason for which a record did not reach the report.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum LossCounter {
            $(#[doc = $doc] $variant = $id,)*
        }

        impl LossCounter {
            /// All counters, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable name used in reports, JSON and metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// One sentence for a person: what was lost, and what that means.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
            }

            /// Whether a record is gone; the others say that something about a record that was kept is missing or doubtful.
            #[must_use]
            pub fn is_loss(self) -> bool {
                !matches!(
                    self,
                    Self::EventWithoutDuration
                        | Self::CorrelationDuplicate
                        | Self::LaunchEvicted
                        | Self::LaunchMissing
                        | Self::StringTableFull
                        | Self::StreamOverlap
                        | Self::TableMissing
                        | Self::StackLost
                        | Self::StackCut
                        | Self::SymbolMissing
                        | Self::ObjectUnresolved
                        | Self::CallOpen
                        | Self::AgentNameLost
                        | Self::OperationUnfinished
                )
            }

            /// The counter with this number, if this version knows it.
            #[must_use]
            pub fn from_id(id: u16) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// The number in files.
            #[must_use]
            pub fn id(self) -> u16 {
                self as u16
            }
        }
    };
}

loss_counters! {
    1 EventMalformed "event_malformed" "An event of the input could not be parsed and was left out.";
    2 EventWithoutDuration "event_without_duration" "An event had no duration; on a GPU its time is booked as UNKNOWN until the next operation of its stream.";
    3 EventTimeInvalid "event_time_invalid" "An event's time or duration was negative, not a number or absurdly large; it was left out, and where it may have run on a GPU the time around it is UNKNOWN.";
    4 EventTooLarge "event_too_large" "An event was larger than the importer's limit and was left out.";
    5 InputTruncated "input_truncated" "The input ended in the middle; whatever came after is missing.";
    6 CorrelationDuplicate "correlation_duplicate" "Two host calls had the same correlation id; the later one was used.";
    7 LaunchEvicted "launch_evicted" "A host call waited too long for its GPU operation and was forgotten; the operation has no known launch.";
    8 LaunchMissing "launch_missing" "A GPU operation has no recorded host call; gaps that it closes are UNKNOWN.";
    9 StringTableFull "string_table_full" "A name did not fit into the string table and was replaced.";
    10 SegmentDamaged "segment_damaged" "A segment of the capture failed its checksum and was left out.";
    11 BatchDamaged "batch_damaged" "A block of records failed its checksum or could not be decoded; its time is UNKNOWN.";
    12 CaptureTruncated "capture_truncated" "The capture ends in the middle of a segment, which was left out.";
    13 StreamOverlap "stream_overlap" "Operations of one stream overlap: programmatic dependent launch does that; otherwise the times of the trace are doubtful.";
    14 RowInvalid "row_invalid" "A row of the input had a value of the wrong type or out of range and was left out.";
    15 SpanUnmatched "span_unmatched" "A begin without an end (or the reverse) was left out.";
    16 TableMissing "table_missing" "A table or column that the importer can use is not in the input.";
    17 LossWindowReported "loss_window_reported" "The producer of the trace says that it dropped records.";
    18 TableFull "table_full" "More processes, threads, devices or stacks than the importer's limit; the rest were left out.";
    19 RingFull "ring_full" "The kernel had records and the ring to the recorder was full; the time of the threads concerned is UNKNOWN.";
    20 QueueFull "queue_full" "The recorder read records faster than it could write them, and left some out; the time of the threads concerned is UNKNOWN.";
    21 RecordMalformed "record_malformed" "A record from the kernel had the wrong length or an unknown type and was left out.";
    22 StackLost "stack_lost" "A wait or a sample has no stack: it could not be read, or its record did not arrive.";
    23 StackCut "stack_cut" "A native stack ends early: the code was built without frame pointers, or the stack is deeper than is recorded.";
    24 SymbolMissing "symbol_missing" "An address has no name: the file has no symbols, or the process was gone before it could be looked at.";
    25 ObjectUnresolved "object_unresolved" "A descriptor was not resolved to a path or a peer.";
    26 ThreadUnknown "thread_unknown" "A record names a thread whose introduction did not arrive.";
    27 ThreadTableFull "thread_table_full" "More threads than the recorder follows; the rest were left out.";
    28 CallOpen "call_open" "A collective call's return was not seen: the thread left it by an exception or a jump, or more were open than are followed.";
    29 ProbeMissed "probe_missed" "The kernel skipped a probe: it was busy on that CPU, or others were attaching to the same event. Where a switch of a thread is missing, its time until the next one is UNKNOWN.";
    30 RequestLost "request_lost" "More requests to block devices were under way than are followed; the rest were left out.";
    31 CallsPaused "calls_paused" "Collective calls came so often that their probes were taken off for a while to spare the job; the time of the threads that make them is UNKNOWN meanwhile.";
    32 AgentRingFull "agent_ring_full" "The agent in the job had records and its ring to the recorder was full; the time of the devices is UNKNOWN.";
    33 CuptiDropped "cupti_dropped" "CUPTI says that it dropped records; the time of the devices is UNKNOWN.";
    34 AgentNoBuffer "agent_no_buffer" "CUPTI asked the agent for a buffer while all were in use, and dropped what came then.";
    35 AgentMalformed "agent_malformed" "A record from the agent, or from CUPTI to it, made no sense and was left out.";
    36 AgentNameLost "agent_name_lost" "There was no room for the name of a kernel or a range.";
    37 OperationUnfinished "operation_unfinished" "CUPTI returned an operation without its end; its time is UNKNOWN.";
    38 RangeLost "range_lost" "A range of the user's was left out: too many were open, or its begin was not seen.";
    39 AgentYielded "agent_yielded" "The agent stepped aside for a profiler in the job; the time of the devices is UNKNOWN until it collected again.";
    40 AgentTaken "agent_taken" "A profiler in the job took CUPTI's callbacks from the agent before it was noticed; the time of the devices is UNKNOWN from the last record that is known to have come until the agent collected again.";
}

#[cfg(test)]
mod tests {
    use super::LossCounter;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let mut names: Vec<_> = LossCounter::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LossCounter::ALL.len());
        for &counter in LossCounter::ALL {
            assert_eq!(LossCounter::from_id(counter.id()), Some(counter));
        }
    }
}
