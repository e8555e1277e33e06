//! NVTX ranges, and the profiler's own overhead, as spans on host threads.
//!
//! Ranges are read before any API call, so that whether a call was made inside a range of a collective library is known
//! whatever the order of the rows.

use std::io::Write;

use hashbrown::{HashMap, HashSet};
use rusqlite::Row;
use stallscope_core::classify::is_collective_range;
use stallscope_core::rows::HostSpan;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::SpanKind;
use stallscope_schemas::units::{StackId, StringId, TimeNs};

use super::actors::ProcessKey;
use super::database::{WrongType, integer, text};
use super::names::{intern, range_kind};
use super::{Reader, Span, span};
use crate::ImportError;

/// Values of `eventType`; a file names them in `ENUM_NSYS_EVENT_TYPE`, and they have not changed since 2020.
mod event_type {
    pub(super) const PUSH_POP: i64 = 59;
    pub(super) const START_END: i64 = 60;
    pub(super) const TEXT_PUSH_POP: i64 = 70;
    pub(super) const TEXT_START_END: i64 = 71;
    pub(super) const DOMAIN_CREATE: i64 = 75;
}

/// Domains whose ranges are calls into a collective library.
const COLLECTIVE_DOMAINS: &[&str] = &["NCCL", "RCCL"];

/// An entry that every payload of NCCL has, whatever its domain is called.
const COLLECTIVE_PAYLOAD: &str = "NCCL communicator ID";

/// Collective ranges that are remembered, of all threads together: 64 MiB.
const MAX_INTERVALS: usize = 4 << 20;

/// Domains that are remembered; a process has a handful.
const MAX_DOMAINS: usize = 1 << 16;

/// When each thread was inside a collective library: disjoint intervals in order.
#[derive(Debug, Default)]
pub(super) struct CollectiveTimes {
    by_thread: HashMap<i64, Vec<(i64, i64)>>,
    count: usize,
}

impl CollectiveTimes {
    /// Whether the thread was inside a range that began at or before `at` and ended after it.
    pub(super) fn contain(&self, global_tid: Option<i64>, at: TimeNs) -> bool {
        let Some(intervals) = global_tid.and_then(|tid| self.by_thread.get(&tid)) else { return false };
        let before = intervals.partition_point(|&(start, _)| start <= at.0);
        before.checked_sub(1).and_then(|i| intervals.get(i)).is_some_and(|&(_, end)| at.0 < end)
    }

    /// Adds a range; `false` when there is no room.
    fn add(&mut self, global_tid: i64, start: i64, end: i64) -> bool {
        let intervals = self.by_thread.entry(global_tid).or_default();
        // Calls nest (a group's end inside an operator), so most ranges lie within the one before.
        if let Some(last) = intervals.last_mut()
            && last.0 <= start
            && start <= last.1
        {
            last.1 = last.1.max(end);
            return true;
        }
        if self.count >= MAX_INTERVALS {
            return false;
        }
        self.count += 1;
        intervals.push((start, end));
        true
    }

    /// Sorts and joins what was added in any order.
    fn settle(&mut self) {
        for intervals in self.by_thread.values_mut() {
            intervals.sort_unstable();
            intervals.dedup_by(|next, kept| {
                let joined = next.0 <= kept.1;
                if joined {
                    kept.1 = kept.1.max(next.1);
                }
                joined
            });
        }
    }
}

/// Which NVTX domains belong to a collective library. Processes number their domains independently.
#[derive(Debug, Default)]
struct Domains {
    /// By name, where the export has the event that created the domain.
    named: HashMap<(ProcessKey, i64), bool>,
    /// By the payloads of its ranges; these do not say of which process.
    by_payload: HashSet<i64>,
}

impl Domains {
    fn is_collective(&self, process: ProcessKey, domain: i64) -> bool {
        self.named.get(&(process, domain)).copied().unwrap_or_else(|| self.by_payload.contains(&domain))
    }
}

/// Columns of `NVTX_EVENTS`, by position.
const NVTX: &[&str] = &["start", "end", "globalTid", "eventType", "text", "textId", "domainId"];

impl<W: Write> Reader<'_, '_, W> {
    /// Reads all ranges and yields when threads were inside collective libraries.
    pub(super) fn read_ranges(&mut self) -> Result<CollectiveTimes, ImportError> {
        let mut times = CollectiveTimes::default();
        let database = self.database;
        let Some(table) = database.table("NVTX_EVENTS") else { return Ok(times) };
        let domains = self.read_domains()?;
        let outcome = database.scan(table, NVTX, |row| {
            self.step(table.rows());
            match self.nvtx_row(row, table.has("eventType"), &domains) {
                Ok(Some((global_tid, span))) => {
                    if let Some(global_tid) = global_tid
                        && !times.add(global_tid, span.start.0, span.start.plus(span.duration_ns).0)
                    {
                        self.count(LossCounter::TableFull);
                    }
                }
                Ok(None) => {}
                Err(WrongType) => self.count(LossCounter::RowInvalid),
            }
            self.take_failure()
        })?;
        self.note_scan(outcome);
        times.settle();
        Ok(times)
    }

    /// Writes one range; yields it with its thread where it belongs to a collective library.
    fn nvtx_row(
        &mut self,
        row: &Row<'_>,
        typed: bool,
        domains: &Domains,
    ) -> Result<Option<(Option<i64>, Span)>, WrongType> {
        let kind = integer(row, 3)?;
        let is_range = match kind {
            Some(
                event_type::PUSH_POP
                | event_type::START_END
                | event_type::TEXT_PUSH_POP
                | event_type::TEXT_START_END,
            ) => true,
            // Without the column, what has an end is a range and the rest are marks.
            None if !typed => integer(row, 1)?.is_some(),
            _ => false,
        };
        if !is_range {
            return Ok(None);
        }
        let global_tid = integer(row, 2)?;
        let (start, end) = (integer(row, 0)?, integer(row, 1)?);
        let name = self.range_name(row)?;
        let domain = integer(row, 6)?;
        let (Some(start), Some(end)) = (start, end) else {
            self.count(LossCounter::SpanUnmatched);
            return Ok(None);
        };
        let Some(span) = span(start, end) else {
            self.count(LossCounter::EventTimeInvalid);
            return Ok(None);
        };
        let Some((name, kind, named_collective)) = name else {
            self.count(LossCounter::RowInvalid);
            return Ok(None);
        };
        self.push_span(global_tid, span, name, kind);
        let process = global_tid.map_or(ProcessKey::UNKNOWN, ProcessKey::of);
        let collective = named_collective || domain.is_some_and(|d| domains.is_collective(process, d));
        Ok(collective.then_some((global_tid, span)))
    }

    /// The name and kind of a range, and whether the name alone says that it belongs to a collective library.
    fn range_name(&mut self, row: &Row<'_>) -> Result<Option<(StringId, SpanKind, bool)>, WrongType> {
        if let Some(text) = text(row, 4)? {
            let (name, kind) = range_kind(&text);
            return Ok(Some((intern(self.ingest, name), kind, is_collective_range(name))));
        }
        let Some(id) = integer(row, 5)? else { return Ok(None) };
        if let Some(&known) = self.registered.get(&id) {
            return Ok(Some(known));
        }
        let Some(whole) = self.names.get(self.ingest, id) else { return Ok(None) };
        let text = self.ingest.writer().tables().string(whole).to_owned();
        let (name, kind) = range_kind(&text);
        let found = (intern(self.ingest, name), kind, is_collective_range(name));
        if self.registered.len() < MAX_DOMAINS {
            self.registered.insert(id, found);
        }
        Ok(Some(found))
    }

    fn read_domains(&mut self) -> Result<Domains, ImportError> {
        let mut domains = Domains::default();
        let database = self.database;
        if let Some(table) = database.table("NVTX_PAYLOAD_SCHEMA_ENTRIES") {
            database.scan(table, &["domainId", "name"], |row| {
                if let (Ok(Some(domain)), Ok(Some(name))) = (integer(row, 0), text(row, 1))
                    && name == COLLECTIVE_PAYLOAD
                    && domains.by_payload.len() < MAX_DOMAINS
                {
                    domains.by_payload.insert(domain);
                }
                Ok(())
            })?;
        }
        if let Some(table) = database.table("NVTX_EVENTS").filter(|t| t.has("domainId") && t.has("eventType"))
        {
            database.scan(table, &["eventType", "globalTid", "domainId", "text", "textId"], |row| {
                if integer(row, 0) != Ok(Some(event_type::DOMAIN_CREATE)) {
                    return Ok(());
                }
                let (Ok(tid), Ok(Some(domain))) = (integer(row, 1), integer(row, 2)) else { return Ok(()) };
                let name = match text(row, 3) {
                    Ok(Some(name)) => Some(name.into_owned()),
                    _ => self
                        .names
                        .cell(self.ingest, row, 4)
                        .ok()
                        .flatten()
                        .map(|id| self.string(id).to_owned()),
                };
                if let Some(name) = name
                    && domains.named.len() < MAX_DOMAINS
                {
                    let process = tid.map_or(ProcessKey::UNKNOWN, ProcessKey::of);
                    let collective = COLLECTIVE_DOMAINS.iter().any(|d| name.eq_ignore_ascii_case(d));
                    domains.named.insert((process, domain), collective);
                }
                Ok(())
            })?;
        }
        Ok(domains)
    }

    /// Reads what the profiler itself cost the program.
    pub(super) fn read_overhead(&mut self) -> Result<(), ImportError> {
        let database = self.database;
        for name in ["PROFILER_OVERHEAD", "CUPTI_ACTIVITY_KIND_OVERHEAD"] {
            let Some(table) = database.table(name) else { continue };
            let columns = ["start", "end", "globalTid", "nameId", "overheadType"];
            let outcome = database.scan(table, &columns, |row| {
                self.step(table.rows());
                if self.overhead_row(row).is_err() {
                    self.count(LossCounter::RowInvalid);
                }
                self.take_failure()
            })?;
            self.note_scan(outcome);
        }
        Ok(())
    }

    fn overhead_row(&mut self, row: &Row<'_>) -> Result<(), WrongType> {
        let (Some(start), Some(end)) = (integer(row, 0)?, integer(row, 1)?) else { return Err(WrongType) };
        let global_tid = integer(row, 2)?;
        let Some(span) = span(start, end) else {
            self.count(LossCounter::EventTimeInvalid);
            return Ok(());
        };
        let name = self.names.cell(self.ingest, row, 3)?.map(|id| self.string(id).to_owned());
        let what = name.unwrap_or_else(|| overhead_name(integer(row, 4).ok().flatten()).to_owned());
        let name = intern(self.ingest, &format!("profiler overhead: {what}"));
        self.push_span(global_tid, span, name, SpanKind::Other);
        Ok(())
    }

    fn push_span(&mut self, global_tid: Option<i64>, span: Span, name: StringId, kind: SpanKind) {
        let (thread, _) = self.actors.thread(self.ingest, global_tid);
        let row =
            HostSpan { start: span.start, duration_ns: span.duration_ns, name, kind, stack: StackId(0) };
        self.host_records += 1;
        let written = self.ingest.writer().push_host_span(thread, row);
        self.remember_failure(written);
    }
}

/// The values of `overheadType`, in CUPTI's words.
fn overhead_name(kind: Option<i64>) -> &'static str {
    match kind {
        Some(2) => "driver compiler",
        Some(3) => "buffer flush",
        Some(4) => "instrumentation",
        Some(5) => "resource creation or destruction",
        Some(6) => "module loading",
        Some(7) => "lazy function loading",
        Some(8) => "command buffer full",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::units::TimeNs;

    use super::CollectiveTimes;

    #[test]
    fn collective_times_hold_whatever_the_order_of_the_ranges() {
        let mut times = CollectiveTimes::default();
        for (start, end) in [(50, 60), (10, 20), (15, 30), (30, 35), (12, 14)] {
            assert!(times.add(1, start, end));
        }
        times.settle();
        for (at, inside) in
            [(9, false), (10, true), (29, true), (34, true), (35, false), (49, false), (59, true)]
        {
            assert_eq!(times.contain(Some(1), TimeNs(at)), inside, "{at}");
        }
        assert!(!times.contain(Some(2), TimeNs(10)));
        assert!(!times.contain(None, TimeNs(10)));
    }
}
