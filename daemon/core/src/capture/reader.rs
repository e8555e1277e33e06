//! Reads a capture: opens by headers alone, decodes batches on demand, merges a key's batches by time.

use std::io;
use std::sync::Mutex;

use hashbrown::{HashMap, HashSet};
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::RecordKind;
use stallscope_schemas::units::TimeNs;

use super::FORMAT_MAJOR;
use super::batch::{BatchColumns, ColumnSet};
use super::columns::{ColumnSpec, Encoding, Shape, Transform, decode, take_varint};
use super::frame::{FILE_HEAD_LEN, FileHead, PREFIX_LEN, Prefix, SEGMENT_MAGIC, parse_file_head};
use super::ids::Ids;
use super::merge::{DamageNotes, Merged, MergedRows};
use super::read_at::ReadAt;
use super::relation::Relation;
use super::segment::{BatchPlace, ColumnPlace, parse, source_of};
use super::tables::Tables;
use super::writer::plausible;
use crate::rows::Row;

/// Why a file could not be opened as a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be read.
    #[error("cannot read the capture: {0}")]
    Input(#[from] io::Error),
    /// The first bytes are not those of a capture.
    #[error("this is not a Stallscope capture (it does not begin with the .stall signature)")]
    NotACapture,
    /// The file is empty or ends within its head.
    #[error("this capture is empty: it ends before its first segment")]
    Empty,
    /// A newer program wrote it.
    #[error(
        "this capture has format version {found}, and this program reads up to version {supported}; \
         use a newer stallscope"
    )]
    NewerVersion {
        /// Major version of the file.
        found: u16,
        /// Major version of this program.
        supported: u16,
    },
}

/// One batch of the file.
#[derive(Clone, Debug)]
pub struct BatchInfo {
    /// What its rows are; `None` for a kind that this version does not know.
    pub kind: Option<RecordKind>,
    /// Number of the kind in the file.
    pub kind_id: u16,
    /// Device or thread.
    pub key: u32,
    /// Number of rows.
    pub rows: u32,
    /// Least start, on the capture's time line.
    pub min: TimeNs,
    /// Greatest end, on the capture's time line.
    pub max: TimeNs,
    /// Bytes in the file.
    pub stored_len: u32,
    /// Added to the times of the rows.
    pub(super) clock_offset_ns: i64,
    file_offset: u64,
    crc32c: u32,
    columns: Vec<ColumnPlace>,
    /// Position among all batches of all files.
    pub(super) order: usize,
    /// Position of the file.
    pub(super) part: usize,
}

/// A damaged stretch of the file: between which batches it lies.
#[derive(Clone, Copy, Debug)]
pub struct Hole {
    /// Number of batches that precede it.
    pub after_batches: usize,
}

/// One file of a capture.
#[derive(Debug)]
pub(super) struct Part<S> {
    pub(super) source: S,
    /// Where its tables stand in those of all files; none where there is one file.
    pub(super) ids: Option<Ids>,
}

/// An open capture: of one file, or of several that are read together ([`Capture::join`]).
#[derive(Debug)]
pub struct Capture<S> {
    pub(super) parts: Vec<Part<S>>,
    pub(super) tables: Tables,
    pub(super) batches: Vec<BatchInfo>,
    by_key: HashMap<(u16, u32), Vec<usize>>,
    losses: Mutex<HashMap<u16, u64>>,
    /// Damaged batches that have been counted: analyses read the same batch more than once.
    damaged: Mutex<HashSet<usize>>,
    pub(super) holes: Vec<Hole>,
    pub(super) relations: Vec<Relation>,
    pub(super) segments: u64,
    pub(super) header_bytes: u64,
    pub(super) file_len: u64,
    pub(super) host: String,
    pub(super) boot_id: String,
    pub(super) writer: String,
}

impl<S: ReadAt> Capture<S> {
    /// Opens a capture. Only headers are read.
    ///
    /// # Errors
    /// [`CaptureError`]; damage past the head is not an error but is counted in [`Capture::losses`].
    pub fn open(source: S) -> Result<Self, CaptureError> {
        let file_len = source.size()?;
        let mut head = [0u8; FILE_HEAD_LEN];
        if file_len == 0 {
            return Err(CaptureError::Empty);
        }
        let have = usize::try_from(file_len).unwrap_or(FILE_HEAD_LEN).min(FILE_HEAD_LEN);
        source.read_exact_at(0, head.get_mut(..have).unwrap_or_default())?;
        match parse_file_head(&head) {
            FileHead::Readable => {}
            FileHead::Newer { major } => {
                return Err(CaptureError::NewerVersion { found: major, supported: FORMAT_MAJOR });
            }
            FileHead::NotACapture => return Err(CaptureError::NotACapture),
        }
        if have < FILE_HEAD_LEN {
            return Err(CaptureError::Empty);
        }
        let mut capture = Self {
            parts: vec![Part { source, ids: None }],
            tables: Tables::default(),
            batches: Vec::new(),
            by_key: HashMap::new(),
            losses: Mutex::default(),
            damaged: Mutex::default(),
            holes: Vec::new(),
            relations: Vec::new(),
            segments: 0,
            header_bytes: 0,
            file_len,
            host: String::new(),
            boot_id: String::new(),
            writer: String::new(),
        };
        capture.read_headers()?;
        capture.apply_clocks();
        Ok(capture)
    }

    /// Reads from the one file of a capture that is being opened.
    fn read_file(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let part = self.parts.first().ok_or(io::ErrorKind::UnexpectedEof)?;
        part.source.read_exact_at(at, into)
    }

    fn read_headers(&mut self) -> Result<(), CaptureError> {
        let mut at = FILE_HEAD_LEN as u64;
        let mut header = Vec::new();
        while at < self.file_len {
            match self.read_segment(at, &mut header)? {
                Step::Segment(len) => at += len,
                Step::CutShort => {
                    self.count_loss(LossCounter::CaptureTruncated, 1);
                    self.holes.push(Hole { after_batches: self.batches.len() });
                    // A prefix whose length was never right may hide whole segments behind it.
                    match self.find_segment(at + 1)? {
                        Some(next) => at = next,
                        None => break,
                    }
                }
                Step::Damaged => {
                    self.count_loss(LossCounter::SegmentDamaged, 1);
                    self.holes.push(Hole { after_batches: self.batches.len() });
                    match self.find_segment(at + 1)? {
                        Some(next) => at = next,
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }

    fn read_segment(&mut self, at: u64, header: &mut Vec<u8>) -> Result<Step, CaptureError> {
        let mut prefix = [0u8; PREFIX_LEN];
        if at + PREFIX_LEN as u64 > self.file_len {
            return Ok(Step::CutShort);
        }
        self.read_file(at, &mut prefix)?;
        let Some(prefix) = Prefix::from_bytes(&prefix) else { return Ok(Step::Damaged) };
        if at.saturating_add(prefix.total_len()) > self.file_len {
            return Ok(Step::CutShort);
        }
        header.resize(prefix.header_len as usize, 0);
        self.read_file(at + PREFIX_LEN as u64, header)?;
        if crc32c::crc32c(header) != prefix.header_crc {
            return Ok(Step::Damaged);
        }
        // Parse into a copy-free view first: a header that turns out malformed half-way has already added to the
        // tables, which only ever grow, so nothing that was there before is lost.
        let Ok(content) = parse(header, &mut self.tables) else { return Ok(Step::Damaged) };
        if self.segments == 0 {
            self.writer = content.origin.writer;
            self.host.clone_from(&content.origin.host);
            self.boot_id = content.origin.boot_id;
        } else if self.host.is_empty() {
            self.host = content.origin.host;
        }
        for (counter, count) in content.losses {
            self.add_loss(counter, count);
        }
        let body_at = at + PREFIX_LEN as u64 + u64::from(prefix.header_len);
        for batch in content.batches {
            self.add_batch(batch, body_at, prefix.body_len);
        }
        self.segments += 1;
        self.header_bytes += PREFIX_LEN as u64 + u64::from(prefix.header_len);
        Ok(Step::Segment(prefix.total_len()))
    }

    fn add_batch(&mut self, batch: BatchPlace, body_at: u64, body_len: u64) {
        let inside = batch.offset.checked_add(batch.stored_len.into()).is_some_and(|end| end <= body_len);
        let believable = plausible(TimeNs(batch.min_ns)) && plausible(TimeNs(batch.max_ns));
        if !inside || !believable || batch.max_ns < batch.min_ns {
            self.count_loss(LossCounter::BatchDamaged, batch.rows.into());
            return;
        }
        self.batches.push(BatchInfo {
            kind: RecordKind::from_id(batch.kind.into()),
            kind_id: batch.kind,
            key: batch.key,
            rows: batch.rows,
            min: TimeNs(batch.min_ns),
            max: TimeNs(batch.max_ns),
            stored_len: batch.stored_len,
            clock_offset_ns: 0,
            file_offset: body_at + batch.offset,
            crc32c: batch.crc32c,
            columns: batch.columns,
            order: self.batches.len(),
            part: 0,
        });
    }

    /// Position of the next intact segment prefix at or after `from`.
    fn find_segment(&self, mut from: u64) -> Result<Option<u64>, CaptureError> {
        let mut window = vec![0u8; 1 << 20];
        while from + (PREFIX_LEN as u64) <= self.file_len {
            let len = usize::try_from(self.file_len - from).unwrap_or(usize::MAX).min(window.len());
            let bytes = window.get_mut(..len).unwrap_or_default();
            self.read_file(from, bytes)?;
            let hit = bytes.windows(PREFIX_LEN).position(|w| {
                w.starts_with(&SEGMENT_MAGIC) && w.first_chunk().and_then(Prefix::from_bytes).is_some()
            });
            if let Some(hit) = hit {
                return Ok(Some(from + hit as u64));
            }
            from += (len - PREFIX_LEN + 1) as u64;
        }
        Ok(None)
    }

    /// Moves every batch onto the capture's time line and indexes batches by key.
    fn apply_clocks(&mut self) {
        for batch in &mut self.batches {
            let source = batch.kind.and_then(|kind| source_of(kind.key_space(), batch.key, &self.tables));
            let clock = source.and_then(|s| self.tables.clock(s));
            let offset = clock.map_or(0, |c| c.offset_ns);
            if plausible(TimeNs(offset)) {
                batch.clock_offset_ns = offset;
                batch.min = TimeNs(batch.min.0.saturating_add(offset));
                batch.max = TimeNs(batch.max.0.saturating_add(offset));
            }
        }
        self.index();
    }

    /// Indexes batches by key.
    pub(super) fn index(&mut self) {
        self.by_key.clear();
        for (at, batch) in self.batches.iter().enumerate() {
            self.by_key.entry((batch.kind_id, batch.key)).or_default().push(at);
        }
        for list in self.by_key.values_mut() {
            list.sort_by_key(|&at| self.batches.get(at).map(|b| (b.min, b.order)));
        }
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// All batches in the order of the file.
    #[must_use]
    pub fn batches(&self) -> &[BatchInfo] {
        &self.batches
    }

    /// Batches of a kind and key, by their least start.
    pub fn batches_of(&self, kind: RecordKind, key: u32) -> impl Iterator<Item = &BatchInfo> {
        let list = self.by_key.get(&(kind.id(), key));
        list.into_iter().flatten().filter_map(|&at| self.batches.get(at))
    }

    /// Keys (devices or threads) that have records of a kind, ascending.
    #[must_use]
    pub fn keys(&self, kind: RecordKind) -> Vec<u32> {
        let mut keys: Vec<u32> =
            self.by_key.keys().filter(|(k, _)| *k == kind.id()).map(|(_, key)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// Records lost, by counter number, as far as anyone has noticed: reading damaged batches adds to it.
    #[must_use]
    pub fn losses(&self) -> Vec<(u16, u64)> {
        let mut losses: Vec<(u16, u64)> =
            self.losses.lock().map(|l| l.iter().map(|(&k, &v)| (k, v)).collect()).unwrap_or_default();
        losses.sort_unstable();
        losses
    }

    /// Damaged stretches between segments.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Whole segments.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Bytes of segment prefixes and headers: the tables.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.header_bytes
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    /// Host name, or "" where unknown.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Boot id of the host, or "" where unknown.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Program that wrote the capture.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.writer
    }

    pub(super) fn count_loss(&self, counter: LossCounter, count: u64) {
        self.add_loss(counter.id(), count);
    }

    pub(super) fn add_loss(&self, counter: u16, count: u64) {
        if let Ok(mut losses) = self.losses.lock() {
            let sum = losses.entry(counter).or_default();
            *sum = sum.saturating_add(count);
        }
    }

    /// Decodes columns of a batch. `None` for a damaged batch, which is counted.
    pub fn read_batch<R: Row>(
        &self,
        batch: &BatchInfo,
        set: ColumnSet,
        into: &mut BatchColumns,
    ) -> Option<()> {
        let decoded = self.try_read_batch::<R>(batch, set, into);
        if decoded.is_none() {
            into.rows = 0;
            if self.damaged.lock().is_ok_and(|mut damaged| damaged.insert(batch.order)) {
                self.count_loss(LossCounter::BatchDamaged, batch.rows.into());
            }
        }
        decoded
    }

    fn try_read_batch<R: Row>(
        &self,
        batch: &BatchInfo,
        set: ColumnSet,
        into: &mut BatchColumns,
    ) -> Option<()> {
        let BatchColumns { columns, rows, body, scratch } = into;
        *rows = batch.rows as usize;
        body.resize(batch.stored_len as usize, 0);
        let part = self.parts.get(batch.part)?;
        part.source.read_exact_at(batch.file_offset, body).ok()?;
        if crc32c::crc32c(body) != batch.crc32c {
            return None;
        }
        columns.resize_with(R::COLUMNS.len().max(columns.len()), Vec::new);
        // Durations first: starts may be stored relative to the end of the record before.
        let (starts, others): (Vec<&ColumnSpec>, Vec<&ColumnSpec>) =
            R::COLUMNS.iter().partition(|spec| matches!(spec.shape, Shape::Start { .. }));
        for spec in others.into_iter().chain(starts) {
            let mut values = std::mem::take(columns.get_mut(usize::from(spec.id))?);
            values.clear();
            let place = batch.columns.iter().find(|c| c.id == spec.id);
            if let (true, Some(place)) = (set.has(spec.id), place) {
                let durations = match spec.shape {
                    Shape::Start { duration } => {
                        columns.get(usize::from(duration)).map_or(&[][..], Vec::as_slice)
                    }
                    _ => &[],
                };
                let from = place.offset as usize;
                let bytes = body.get(from..from.checked_add(place.stored_len as usize)?)?;
                decode(
                    Transform::from_id(place.transform)?,
                    Encoding::from_id(place.encoding)?,
                    bytes,
                    *rows,
                    durations,
                    &mut values,
                    scratch,
                )?;
                if matches!(spec.shape, Shape::Start { .. }) && batch.clock_offset_ns != 0 {
                    let offset = batch.clock_offset_ns.cast_unsigned();
                    values.iter_mut().for_each(|v| *v = v.wrapping_add(offset));
                }
            } else if set.has(spec.id) {
                // A column that an older writer did not have.
                values.resize(*rows, 0);
            }
            *columns.get_mut(usize::from(spec.id))? = values;
        }
        // The sweep and the merge rely on the order and on sums that do not overflow.
        let starts = columns.first()?;
        let durations = columns.get(1)?;
        let sorted = starts.is_sorted_by_key(|s| s.cast_signed());
        let first = starts.first().map(|s| TimeNs(s.cast_signed()));
        let ends_inside = starts
            .iter()
            .zip(durations)
            .all(|(&s, &d)| d < 1 << 62 && TimeNs(s.cast_signed()).plus(d) <= batch.max);
        (sorted && first == Some(batch.min) && ends_inside).then_some(())?;
        if let Some(ids) = &part.ids {
            ids.renumber(R::KIND, columns);
        }
        Some(())
    }

    /// Whether a row of this key may have one of these bits in a column. Only that column is read, and no checksum: the rows of
    /// a batch in which it would be misread are never handed out.
    pub(crate) fn may_have<R: Row>(&self, key: u32, column: u16, bits: u64) -> bool {
        let (mut stored, mut values, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        let mut any = |batch: &BatchInfo| {
            // A column that an older writer did not have holds zeros.
            let Some(place) = batch.columns.iter().find(|c| c.id == column) else { return Some(false) };
            stored.resize((place.stored_len.min(batch.stored_len)) as usize, 0);
            let part = self.parts.get(batch.part)?;
            part.source.read_exact_at(batch.file_offset + u64::from(place.offset), &mut stored).ok()?;
            let (encoding, rows) = (Encoding::from_id(place.encoding)?, batch.rows as usize);
            if encoding == Encoding::Constant {
                return Some(take_varint(&mut stored.as_slice())? & bits != 0);
            }
            let transform = Transform::from_id(place.transform)?;
            decode(transform, encoding, &stored, rows, &[], &mut values, &mut scratch)?;
            Some(values.iter().any(|value| value & bits != 0))
        };
        self.batches_of(R::KIND, key).any(|batch| any(batch).unwrap_or(true))
    }

    /// Rows of one key in the order of their starts, as runs of columns.
    pub fn merged<R: Row>(&self, key: u32, set: ColumnSet) -> Merged<'_, S, R> {
        Merged::new(self, set, self.batches_of(R::KIND, key).collect())
    }

    /// Rows of one key in the order of their starts, one by one. Damaged batches are skipped (and counted).
    pub fn rows<R: Row>(&self, key: u32) -> MergedRows<'_, S, R> {
        MergedRows::new(self.merged(key, ColumnSet::ALL), None)
    }

    /// Rows of one key that overlap `[from, to)`, in the order of their starts. Batches that lie outside are not read.
    pub fn rows_between<R: Row>(&self, key: u32, from: TimeNs, to: TimeNs) -> impl Iterator<Item = R> {
        let overlaps = move |start: TimeNs, end: TimeNs| start < to && (from < end || from == start);
        let pending = self.batches_of(R::KIND, key).filter(|b| overlaps(b.min, b.max)).collect();
        MergedRows::<S, R>::new(Merged::new(self, ColumnSet::ALL, pending), None)
            .filter(move |row| overlaps(row.start(), row.end()))
    }

    /// As [`Capture::rows`], noting the stretches of damaged batches in `damage`.
    pub fn rows_noting<R: Row>(&self, key: u32, damage: DamageNotes) -> MergedRows<'_, S, R> {
        MergedRows::new(self.merged(key, ColumnSet::ALL), Some(damage))
    }

    /// As [`Capture::rows_noting`], without the batches that end before `from`, which are not read. Rows that end before
    /// may still come.
    pub fn rows_from<R: Row>(
        &self,
        key: u32,
        from: TimeNs,
        damage: Option<DamageNotes>,
    ) -> MergedRows<'_, S, R> {
        let pending = self.batches_of(R::KIND, key).filter(|b| b.max >= from).collect();
        MergedRows::new(Merged::new(self, ColumnSet::ALL, pending), damage)
    }

    /// Counts rows in the file of each kind, with their bytes: `(kind number, rows, bytes)`.
    #[must_use]
    pub fn sizes(&self) -> Vec<(u16, u64, u64)> {
        let mut sizes: Vec<(u16, u64, u64)> = Vec::new();
        for batch in &self.batches {
            let (rows, bytes) = (u64::from(batch.rows), u64::from(batch.stored_len));
            match sizes.iter_mut().find(|(kind, ..)| *kind == batch.kind_id) {
                Some(size) => {
                    size.1 += rows;
                    size.2 += bytes;
                }
                None => sizes.push((batch.kind_id, rows, bytes)),
            }
        }
        sizes.sort_unstable();
        sizes
    }

    /// Time between the least start and the greatest end of the batches of a kind and key.
    #[must_use]
    pub fn extent(&self, kind: RecordKind, key: u32) -> Option<(TimeNs, TimeNs)> {
        let (min, max) = self.batches_of(kind, key).fold((None, None), |(min, max), b| {
            (
                Some(min.map_or(b.min, |m: TimeNs| m.min(b.min))),
                Some(max.map_or(b.max, |m: TimeNs| m.max(b.max))),
            )
        });
        min.zip(max)
    }

    /// For one key: the stretches of time that a damaged part of the file may have covered, between the records that
    /// precede it in the file and those that follow.
    #[must_use]
    pub fn hole_windows(&self, kind: RecordKind, key: u32) -> Vec<(TimeNs, TimeNs)> {
        let of_key = || self.batches_of(kind, key);
        self.holes
            .iter()
            .filter_map(|hole| {
                let before = of_key().filter(|b| b.order < hole.after_batches).map(|b| b.max).max()?;
                let after = of_key().filter(|b| b.order >= hole.after_batches).map(|b| b.min).min()?;
                (before < after).then_some((before, after))
            })
            .collect()
    }
}

/// What was found where a segment should begin.
enum Step {
    Segment(u64),
    CutShort,
    Damaged,
}
