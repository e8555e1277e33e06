//! Between the in-memory tables and the FlatBuffers header of a segment.
//!
//! A header comes from a file, and a checksum does not make it honest: one string can be referenced a million times by a
//! hostile header. So strings are copied against a budget, a multiple of the header's own length, and tables are counted
//! against that length.

use planus::ReadAsRoot;
use stallscope_schemas::capture as fb;
use stallscope_schemas::record::KeySpace;
use stallscope_schemas::units::{DeviceId, ProcessId, SourceId, StackId, StringId, ThreadId};

use super::columns::MAX_BATCH_ROWS;
use super::tables::{Clock, Device, Frame, Process, Source, Tables, Thread};

/// Where a column of a batch lies, relative to the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnPlace {
    pub(super) id: u16,
    pub(super) transform: u8,
    pub(super) encoding: u8,
    pub(super) offset: u32,
    pub(super) stored_len: u32,
}

/// A batch as a segment's header lists it.
#[derive(Clone, Debug)]
pub(super) struct BatchPlace {
    pub(super) kind: u16,
    pub(super) key: u32,
    pub(super) rows: u32,
    pub(super) min_ns: i64,
    pub(super) max_ns: i64,
    /// From the start of the segment's body.
    pub(super) offset: u64,
    pub(super) stored_len: u32,
    pub(super) crc32c: u32,
    pub(super) columns: Vec<ColumnPlace>,
}

/// How much of each table earlier segments already hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) strings: usize,
    pub(super) stacks: usize,
    pub(super) sources: usize,
    pub(super) clocks: usize,
    pub(super) labels: usize,
}

/// What identifies the host that a capture comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) writer: String,
    pub(super) host: String,
    pub(super) boot_id: String,
}

/// Everything that one header says beyond the tables.
#[derive(Debug, Default)]
pub(super) struct HeaderContent {
    pub(super) sequence: u64,
    pub(super) origin: Origin,
    pub(super) losses: Vec<(u16, u64)>,
    pub(super) batches: Vec<BatchPlace>,
}

fn text(s: &str) -> Option<String> {
    (!s.is_empty()).then(|| s.to_owned())
}

fn index_of(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Serialises a header: the batches, and what the tables gained since `marks`.
///
/// Processes, threads and devices are few and change late (a rank becomes known), so they are repeated whole when
/// `repeat_actors` is set.
pub(super) fn build(content: &HeaderContent, tables: &Tables, marks: Marks, repeat_actors: bool) -> Vec<u8> {
    let strings: Vec<String> = (marks.strings..tables.string_count())
        .map(|i| tables.string(StringId(index_of(i))).to_owned())
        .collect();
    let stacks = tables.stacks.iter().skip(marks.stacks);
    let sources = tables.sources.iter().enumerate().skip(marks.sources);
    let actors = if repeat_actors { usize::MAX } else { 0 };
    let header = fb::SegmentHeader {
        sequence: content.sequence,
        writer: text(&content.origin.writer),
        host: text(&content.origin.host),
        boot_id: text(&content.origin.boot_id),
        sources: Some(
            sources
                .map(|(i, s)| fb::Source { index: index_of(i), path: text(&s.path), format: text(&s.format) })
                .collect(),
        ),
        clocks: Some(tables.clocks.iter().skip(marks.clocks).map(clock_out).collect()),
        losses: Some(
            content.losses.iter().map(|&(counter, count)| fb::LossCount { counter, count }).collect(),
        ),
        first_string: index_of(marks.strings),
        strings: Some(strings),
        first_stack: index_of(marks.stacks),
        stacks: Some(stacks.map(|f| fb::StackNode { parent: f.parent.0, frame: f.name.0 }).collect()),
        processes: Some(tables.processes.iter().enumerate().take(actors).map(process_out).collect()),
        threads: Some(tables.threads.iter().enumerate().take(actors).map(thread_out).collect()),
        devices: Some(tables.devices.iter().enumerate().take(actors).map(device_out).collect()),
        labels: Some(
            tables
                .labels
                .iter()
                .skip(marks.labels)
                .map(|(k, v)| fb::Label { key: text(k), value: text(v) })
                .collect(),
        ),
        batches: Some(content.batches.iter().map(batch_out).collect()),
    };
    planus::Builder::new().finish(&header, None).to_vec()
}

fn clock_out(c: &Clock) -> fb::Clock {
    fb::Clock { source: c.source.0, offset_ns: c.offset_ns, error_ns: c.error_ns, note: text(&c.note) }
}

fn process_out((i, p): (usize, &Process)) -> fb::Process {
    fb::Process {
        index: index_of(i),
        source: p.source.0,
        pid: p.pid,
        name: text(&p.name),
        rank: p.rank.map_or(-1, i64::from),
        world_size: p.world_size.map_or(-1, i64::from),
        host: text(&p.host),
        job: text(&p.job),
    }
}

fn thread_out((i, t): (usize, &Thread)) -> fb::Thread {
    fb::Thread { index: index_of(i), process: t.process.0, tid: t.tid, name: text(&t.name) }
}

fn device_out((i, d): (usize, &Device)) -> fb::Device {
    fb::Device {
        index: index_of(i),
        source: d.source.0,
        kind: d.kind,
        id: text(&d.id),
        ordinal: d.ordinal,
        model: text(&d.model),
        processes: Some(d.processes.iter().map(|p| p.0).collect()),
    }
}

fn batch_out(b: &BatchPlace) -> fb::Batch {
    fb::Batch {
        kind: b.kind,
        key: b.key,
        rows: b.rows,
        min_ns: b.min_ns,
        max_ns: b.max_ns,
        offset: b.offset,
        stored_len: b.stored_len,
        crc32c: b.crc32c,
        columns: Some(
            b.columns
                .iter()
                .map(|c| fb::Column {
                    id: c.id,
                    transform: c.transform,
                    encoding: c.encoding,
                    offset: c.offset,
                    stored_len: c.stored_len,
                })
                .collect(),
        ),
    }
}

/// A header that is not what a writer makes; the text says which part.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("malformed header: {0}")]
    Malformed(#[from] planus::Error),
    #[error("the header's {0} claim more than the header holds")]
    Overstated(&'static str),
}

/// How much longer than a header its texts may be together: the writer stores equal ones once, so that a thousand processes
/// of one job share its name.
const TEXT_FACTOR: usize = 64;
const MOST_TEXT: usize = 64 << 20;

/// Copies what a header holds as long as that is plausible for its length.
struct Budget {
    bytes: usize,
    text: usize,
}

impl Budget {
    fn of(header: usize) -> Self {
        let text = header.saturating_mul(TEXT_FACTOR).min(header.saturating_add(MOST_TEXT));
        Self { bytes: header, text }
    }

    fn take_text(&mut self, s: &str) -> Result<(), HeaderError> {
        self.text = self.text.checked_sub(s.len()).ok_or(HeaderError::Overstated("strings"))?;
        Ok(())
    }

    fn text(&mut self, s: Option<&str>) -> Result<String, HeaderError> {
        let s = s.unwrap_or_default();
        self.take_text(s)?;
        Ok(s.to_owned())
    }

    /// A table entry stands for at least `least` bytes of the header: a vector's slot alone is four.
    fn table(&mut self, least: usize, what: &'static str) -> Result<(), HeaderError> {
        self.bytes = self.bytes.checked_sub(least).ok_or(HeaderError::Overstated(what))?;
        Ok(())
    }
}

/// Puts `row` at `index` of a table that only grows by one at a time, as the writer's does; a gap (a lost segment) is
/// filled with defaults as far as the header's length makes it plausible.
fn place<T: Default + Clone>(
    table: &mut Vec<T>,
    index: u32,
    row: T,
    most_gap: usize,
) -> Result<(), HeaderError> {
    let index = index as usize;
    if index >= table.len() {
        if index - table.len() > most_gap {
            return Err(HeaderError::Overstated("table indices"));
        }
        table.resize(index + 1, T::default());
    }
    if let Some(slot) = table.get_mut(index) {
        *slot = row;
    }
    Ok(())
}

/// Rows that a lost segment may have added to a table.
const MOST_LOST_ROWS: usize = 1 << 20;

/// Reads a header and adds its tables to `tables`.
pub(super) fn parse(bytes: &[u8], tables: &mut Tables) -> Result<HeaderContent, HeaderError> {
    let header = fb::SegmentHeaderRef::read_as_root(bytes)?;
    let mut budget = Budget::of(bytes.len());
    let mut content = HeaderContent {
        sequence: header.sequence()?,
        origin: Origin {
            writer: budget.text(header.writer()?)?,
            host: budget.text(header.host()?)?,
            boot_id: budget.text(header.boot_id()?)?,
        },
        ..HeaderContent::default()
    };
    parse_strings(&header, tables, &mut budget)?;
    parse_actors(&header, tables, &mut budget)?;
    for loss in header.losses()?.into_iter().flatten() {
        let loss = loss?;
        budget.table(4, "loss counters")?;
        content.losses.push((loss.counter()?, loss.count()?));
    }
    for label in header.labels()?.into_iter().flatten() {
        let label = label?;
        budget.table(4, "labels")?;
        tables.labels.push((budget.text(label.key()?)?, budget.text(label.value()?)?));
    }
    for batch in header.batches()?.into_iter().flatten() {
        content.batches.push(parse_batch(batch?, &mut budget)?);
    }
    Ok(content)
}

fn parse_strings(
    header: &fb::SegmentHeaderRef<'_>,
    tables: &mut Tables,
    budget: &mut Budget,
) -> Result<(), HeaderError> {
    let first = header.first_string()? as usize;
    if let Some(strings) = header.strings()? {
        fill_gap(first, tables.string_count(), "strings", |_| {
            tables.push_string("<lost name>");
        })?;
        for s in strings {
            let s = s?;
            budget.table(4, "strings")?;
            budget.take_text(s)?;
            tables.push_string(s);
        }
    }
    let first = header.first_stack()? as usize;
    if let Some(stacks) = header.stacks()? {
        fill_gap(first, tables.stacks.len(), "stacks", |_| tables.stacks.push(Frame::default()))?;
        for node in stacks {
            let node = node?;
            budget.table(4, "stacks")?;
            tables.stacks.push(Frame { parent: StackId(node.parent()?), name: StringId(node.frame()?) });
        }
    }
    Ok(())
}

fn fill_gap(
    first: usize,
    have: usize,
    what: &'static str,
    push: impl FnMut(usize),
) -> Result<(), HeaderError> {
    let gap = first.checked_sub(have).ok_or(HeaderError::Overstated(what))?;
    if gap > MOST_LOST_ROWS {
        return Err(HeaderError::Overstated(what));
    }
    (0..gap).for_each(push);
    Ok(())
}

fn parse_actors(
    header: &fb::SegmentHeaderRef<'_>,
    tables: &mut Tables,
    budget: &mut Budget,
) -> Result<(), HeaderError> {
    for source in header.sources()?.into_iter().flatten() {
        let source = source?;
        budget.table(4, "sources")?;
        let row = Source { path: budget.text(source.path()?)?, format: budget.text(source.format()?)? };
        place(&mut tables.sources, source.index()?, row, MOST_LOST_ROWS)?;
    }
    for clock in header.clocks()?.into_iter().flatten() {
        let clock = clock?;
        budget.table(4, "clocks")?;
        tables.clocks.push(Clock {
            source: SourceId(clock.source()?),
            offset_ns: clock.offset_ns()?,
            error_ns: clock.error_ns()?,
            note: budget.text(clock.note()?)?,
        });
    }
    for process in header.processes()?.into_iter().flatten() {
        let process = process?;
        budget.table(4, "processes")?;
        let row = Process {
            source: SourceId(process.source()?),
            pid: process.pid()?,
            name: budget.text(process.name()?)?,
            rank: u32::try_from(process.rank()?).ok(),
            world_size: u32::try_from(process.world_size()?).ok(),
            host: budget.text(process.host()?)?,
            job: budget.text(process.job()?)?,
        };
        place(&mut tables.processes, process.index()?, row, MOST_LOST_ROWS)?;
    }
    for thread in header.threads()?.into_iter().flatten() {
        let thread = thread?;
        budget.table(4, "threads")?;
        let row = Thread {
            process: ProcessId(thread.process()?),
            tid: thread.tid()?,
            name: budget.text(thread.name()?)?,
        };
        place(&mut tables.threads, thread.index()?, row, MOST_LOST_ROWS)?;
    }
    for device in header.devices()?.into_iter().flatten() {
        let device = device?;
        budget.table(4, "devices")?;
        let processes = device.processes()?;
        budget.table(processes.map_or(0, |p| p.len().saturating_mul(4)), "devices")?;
        let row = Device {
            source: SourceId(device.source()?),
            kind: device.kind()?,
            id: budget.text(device.id()?)?,
            ordinal: device.ordinal()?,
            model: budget.text(device.model()?)?,
            processes: processes.map(|p| p.iter().map(ProcessId).collect()).unwrap_or_default(),
        };
        place(&mut tables.devices, device.index()?, row, MOST_LOST_ROWS)?;
    }
    Ok(())
}

fn parse_batch(batch: fb::BatchRef<'_>, budget: &mut Budget) -> Result<BatchPlace, HeaderError> {
    budget.table(32, "batches")?;
    let rows = batch.rows()?;
    if rows as usize > MAX_BATCH_ROWS {
        return Err(HeaderError::Overstated("rows"));
    }
    let mut columns = Vec::new();
    for column in batch.columns()?.into_iter().flatten() {
        let column = column?;
        budget.table(4, "columns")?;
        columns.push(ColumnPlace {
            id: column.id()?,
            transform: column.transform()?,
            encoding: column.encoding()?,
            offset: column.offset()?,
            stored_len: column.stored_len()?,
        });
    }
    Ok(BatchPlace {
        kind: batch.kind()?,
        key: batch.key()?,
        rows,
        min_ns: batch.min_ns()?,
        max_ns: batch.max_ns()?,
        offset: batch.offset()?,
        stored_len: batch.stored_len()?,
        crc32c: batch.crc32c()?,
        columns,
    })
}

/// The source whose clock the rows of a batch are in.
pub(super) fn source_of(space: KeySpace, key: u32, tables: &Tables) -> Option<SourceId> {
    match space {
        KeySpace::Device => Some(tables.device(DeviceId(key))?.source),
        KeySpace::Process => Some(tables.process(ProcessId(key))?.source),
        KeySpace::Thread => {
            let thread = tables.thread(ThreadId(key))?;
            Some(tables.process(thread.process)?.source)
        }
    }
}
