//! One attachment: from the first call into CUPTI until everything is disabled again.
//!
//! What always holds:
//! - Whatever was enabled is in `enabled` (and the two filters), and is disabled by `detach` or owed by `yield_to_other`.
//! - CUPTI is called from the agent's thread only, except for `cuptiFinalize`.

mod kinds;
mod marks;
mod tables;

use core::ptr::null_mut;

use stallscope_cupti_abi::{
    ActivityKind, Functions, MARK_CALL, VERSION_11_8, VERSION_14_0, code, flush, thread_id,
};
use stallscope_cupti_wire::{Lost, Reason};

use crate::Refusal;
use crate::callbacks::{POOL, buffer_completed, buffer_requested};
use crate::clock::{Clock, Pair, SAMPLE_INTERVAL_NS, SAMPLES};
use crate::convert::Converter;
use crate::driver::Driver;
use crate::output::Output;
use crate::pool::Done;
use crate::progress::is_mark;
use crate::session::kinds::SHARED;
use crate::session::marks::{Known, Marks};
use crate::session::tables::Tables;
use crate::subscriber::{self, Sampling};
use crate::sys;
use crate::text::Texts;
use crate::watch::Plan;

/// Clock readings are at most this far apart.
const CLOCK_INTERVAL_NS: u64 = 100_000_000;

/// How often it is looked whether another profiler has come.
const LOOK_INTERVAL_NS: u64 = 1_000_000_000;

/// The first words of a mark's record: kind and number of the call.
const MARK_WORD: u64 = ActivityKind::Driver.id() as u64 | (MARK_CALL as u64) << 32;

/// At a detach, what still runs gets so many times so long to end before it is taken without an end.
const LAST_FLUSHES: u32 = 3;
const LAST_FLUSH_INTERVAL_NS: u64 = 20_000_000;

/// An attachment.
#[derive(Debug)]
pub(crate) struct Session {
    functions: Functions,
    // Before the tables that it refers to.
    converter: Converter<'static>,
    _tables: Tables,
    clock: Clock,
    last_clock: Pair,
    sampling: Option<Sampling>,
    /// Who is to be asked for the devices; none once they have been told.
    driver: Option<Driver>,
    /// Who is called to make a mark.
    marker: Option<Driver>,
    marks: Marks,
    /// What records called a thread before we came.
    thread_ids_before: Option<u32>,
    /// Bits of the kinds that are enabled.
    enabled: u64,
    /// The kind DRIVER is enabled call by call.
    has_driver_filter: bool,
    has_runtime_filter: bool,
    next_flush_ns: u64,
    next_look_ns: u64,
    last_flush_ns: u64,
}

/// The version that CUPTI says it has; refused where its records are not known.
pub(crate) fn version(functions: &Functions) -> Result<u32, Refusal> {
    let mut version = 0;
    // SAFETY: fills the word that it is given.
    let result = unsafe { (functions.get_version)(&raw mut version) };
    let detail = version.cast_signed();
    if result != code::SUCCESS {
        Err(Refusal::new(Reason::Cupti, result))
    } else if version < VERSION_11_8 {
        Err(Refusal::new(Reason::CuptiTooOld, detail))
    } else if version >= VERSION_14_0 {
        Err(Refusal::new(Reason::CuptiTooNew, detail))
    } else {
        Ok(version)
    }
}

impl Session {
    /// Attaches. Whatever fails on the way is undone.
    pub(crate) fn attach(
        functions: &Functions,
        texts: Texts,
        driver: Option<Driver>,
        plan: &Plan,
        output: &mut Output<'_>,
    ) -> Result<Self, Refusal> {
        subscriber::is_free(functions).map_err(subscriber::refusal)?;
        let (clock, last_clock) = read_clock(functions)?;
        let no_memory = |error: sys::Errno| Refusal::new(Reason::NoMemory, error.0);
        let (tables, names, ranges, progress) = Tables::new().map_err(no_memory)?;
        POOL.open().map_err(no_memory)?;
        let now_ns = sys::monotonic_ns();
        let mut session = Self {
            functions: *functions,
            converter: Converter {
                texts,
                names,
                ranges,
                progress,
                filter_driver: false,
                filter_runtime: false,
            },
            _tables: tables,
            clock,
            last_clock,
            sampling: None,
            driver,
            marker: driver,
            marks: Marks::new(now_ns),
            thread_ids_before: set_thread_ids(functions),
            enabled: 0,
            has_driver_filter: false,
            has_runtime_filter: false,
            next_flush_ns: now_ns + plan.flush_interval_ns,
            next_look_ns: now_ns + LOOK_INTERVAL_NS,
            last_flush_ns: now_ns,
        };
        if let Err(refusal) = register(functions).and_then(|()| session.follow(plan)) {
            session.disable(u64::MAX);
            session.restore_thread_ids();
            POOL.close();
            return Err(refusal);
        }
        // Times of records before this reading are those of what was enabled a moment ago.
        output.publish(now_ns);
        output.record(&last_clock.record());
        Ok(session)
    }

    /// Enables and disables until what is on is what is wanted.
    pub(crate) fn follow(&mut self, plan: &Plan) -> Result<(), Refusal> {
        self.follow_kinds(plan.kinds)?;
        match (&self.sampling, plan.launch_sample) {
            (None, 0) => {}
            (Some(_), 0) => self.stop_sampling(),
            (Some(_), _) => {}
            (None, budget) => {
                self.sampling = Some(Sampling::start(&self.functions, budget).map_err(subscriber::refusal)?);
            }
        }
        Ok(())
    }

    /// Gives the subscription back that sampling launches needs.
    pub(crate) fn stop_sampling(&mut self) {
        if let Some(sampling) = self.sampling.take() {
            sampling.stop(&self.functions);
        }
    }

    /// Bits of the kinds that are enabled.
    pub(crate) const fn enabled(&self) -> u64 {
        self.enabled
    }

    /// Takes what has come back, and asks for more when it is time. Fails where the session has to end.
    pub(crate) fn collect(&mut self, plan: &Plan, output: &mut Output<'_>) -> Result<(), Refusal> {
        self.drain(output)?;
        let now_ns = sys::monotonic_ns();
        // An interval that was shortened holds from now on.
        self.next_flush_ns = self.next_flush_ns.min(now_ns + plan.flush_interval_ns);
        if now_ns >= self.next_flush_ns {
            self.mark();
            self.flush(flush::COMPLETE, output)?;
            self.next_flush_ns = sys::monotonic_ns() + plan.flush_interval_ns;
            self.look_for_mark(output)?;
        }
        if now_ns.saturating_sub(self.last_clock.after) >= CLOCK_INTERVAL_NS {
            self.read_clock(output)?;
        }
        if now_ns >= self.next_look_ns {
            self.look_for_others(now_ns)?;
        }
        if self.sampling.is_some() {
            subscriber::look_at_launches(plan.launch_sample, now_ns);
        }
        output.publish(now_ns);
        Ok(())
    }

    /// Fails where another profiler has the subscription, which it cannot while we have it.
    fn look_for_others(&mut self, now_ns: u64) -> Result<(), Refusal> {
        self.next_look_ns = now_ns + LOOK_INTERVAL_NS;
        if self.sampling.is_some() {
            return Ok(());
        }
        subscriber::is_free(&self.functions).map_err(subscriber::refusal)
    }

    /// Makes a mark. Not before the devices were told: until then the job may be in cuInit, where the driver may hold up
    /// whoever asks it something.
    fn mark(&mut self) {
        let is_recorded = self.enabled & ActivityKind::Driver.bit() != 0;
        let (None, Some(marker), true) = (&self.driver, &self.marker, is_recorded) else { return };
        let mut made = 0;
        let now_ns = sys::monotonic_ns();
        // SAFETY: fills the word that it is given.
        let result = unsafe { (self.functions.get_timestamp)(&raw mut made) };
        if result == code::SUCCESS {
            self.marks.make(made, now_ns);
            marker.ask();
        }
    }

    fn find_mark(&mut self, now_ns: u64) -> Known {
        let is_held = |made| POOL.holds(MARK_WORD, |start| is_mark(start, made));
        self.marks.look(&self.converter.progress, now_ns, is_held)
    }

    /// Looks whether records come to us, and sees to it that they do where nobody else is there.
    fn look_for_mark(&mut self, output: &mut Output<'_>) -> Result<(), Refusal> {
        let now_ns = sys::monotonic_ns();
        // What was known before this mark.
        let known_until_ns = self.known_until_ns();
        match self.find_mark(now_ns) {
            Known::Ours { again: true } => {
                output.publish(now_ns);
                output.lose(Lost::Taken, 1, known_until_ns);
                // What was launched meanwhile and runs on has no record: whoever reads this knows.
            }
            Known::Ours { again: false } | Known::Waiting => {}
            Known::Missing { is_new: true, .. } => self.look_for_others(now_ns)?,
            Known::Missing { since_ns, .. } => {
                if now_ns.saturating_sub(since_ns) >= LOOK_INTERVAL_NS {
                    self.look_for_others(now_ns)?;
                    self.retake(now_ns)?;
                }
            }
        }
        Ok(())
    }

    /// Registers our callbacks again, and enables what was enabled.
    fn retake(&mut self, now_ns: u64) -> Result<(), Refusal> {
        register(&self.functions)?;
        if let Some(before) = set_thread_ids(&self.functions) {
            self.thread_ids_before.get_or_insert(before);
        }
        self.enable_again();
        self.marks.retake(now_ns);
        Ok(())
    }

    /// Until when everything has come to us, CLOCK_MONOTONIC.
    pub(crate) fn known_until_ns(&self) -> u64 {
        self.marks.known_until_ns(&self.converter.progress, self.clock, &self.last_clock)
    }

    /// Whether records go elsewhere, or may.
    pub(crate) const fn is_taken(&self) -> bool {
        self.marks.is_missing()
    }

    /// How long there is nothing to do, if nothing comes back.
    pub(crate) fn idle_ns(&self, now_ns: u64) -> u64 {
        let clock_ns = self.last_clock.after + CLOCK_INTERVAL_NS;
        self.next_flush_ns.min(clock_ns).saturating_sub(now_ns)
    }

    /// Disables everything and takes what CUPTI still has.
    pub(crate) fn detach(mut self, output: &mut Output<'_>) {
        // The clock may be what ends the session: what comes now is still taken.
        self.mark();
        for _ in 0..LAST_FLUSHES {
            let _ = self.flush(flush::COMPLETE, output);
            if POOL.out_count() == 0 {
                break;
            }
            sys::sleep_ns(LAST_FLUSH_INTERVAL_NS);
        }
        // What still runs may have no place in a buffer yet, and is told of only while its kind is enabled.
        let _ = self.flush(flush::FORCED, output);
        self.disable(u64::MAX);
        let _ = self.flush(flush::COMPLETE, output);
        let _ = self.read_clock(output);
        self.conclude(output);
        self.restore_thread_ids();
        self.stop_sampling();
    }

    /// Tells of what did not come to us, and will not.
    fn conclude(&mut self, output: &mut Output<'_>) {
        let (now_ns, known_until_ns) = (sys::monotonic_ns(), self.known_until_ns());
        output.publish(now_ns);
        let is_lost = match self.find_mark(now_ns) {
            Known::Ours { again } => again,
            // All buffers were asked for: what has not come went with them.
            Known::Waiting | Known::Missing { .. } => true,
        };
        if is_lost {
            output.lose(Lost::Taken, 1, known_until_ns);
        }
        output.publish(now_ns);
    }

    /// Another profiler has come. Kinds belong to the process, not to whoever enabled them: those that it too will want
    /// stay, the others are disabled.
    pub(crate) fn yield_to_other(&mut self) {
        self.disable(!SHARED);
        self.restore_thread_ids();
        self.stop_sampling();
    }

    /// Disables what [`Session::yield_to_other`] left, without touching what the other one has registered.
    pub(crate) fn pay(mut self) {
        self.disable(u64::MAX);
    }

    /// Counts what comes back. It is not read any further: the other one may have CUPTI finalised, and with it the texts
    /// go to which records point.
    pub(crate) fn discard(&mut self, output: &mut Output<'_>) {
        for done in POOL.take_done().into_iter().flatten() {
            let mut records = 0;
            self.walk(&done, output, |_, _, _| records += 1);
            output.count(Lost::Yielded, records);
            POOL.recycle(done.index);
        }
        output.publish(sys::monotonic_ns());
    }

    fn flush(&mut self, flags: u32, output: &mut Output<'_>) -> Result<(), Refusal> {
        // SAFETY: callbacks are registered; this thread is in none.
        let result = unsafe { (self.functions.flush_all)(flags) };
        let drained = self.drain(output);
        let mut dropped = 0;
        // SAFETY: fills the word that it is given; null is the global queue, which is the only one.
        let asked = unsafe { (self.functions.dropped_records)(null_mut(), 0, &raw mut dropped) };
        let since_ns = self.last_flush_ns;
        self.last_flush_ns = sys::monotonic_ns();
        if asked == code::SUCCESS {
            output.lose(Lost::CuptiDropped, dropped as u64, since_ns);
        }
        let declined = POOL.take_declined();
        if declined > 0 {
            POOL.extend();
        }
        output.lose(Lost::NoBuffer, declined, since_ns);
        output.count(Lost::Malformed, POOL.take_foreign());
        drained?;
        // Its buffers are what matters; that it was called at a bad moment does not.
        if result == code::SUCCESS || result == code::INVALID_OPERATION {
            Ok(())
        } else {
            Err(subscriber::refusal(result))
        }
    }

    /// Tells of the devices, before the first operation that names one. Not while attaching: a job that was launched with
    /// the agent waits for that inside of cuInit, and the driver may hold up whoever asks it something meanwhile.
    fn tell_devices(&mut self, output: &mut Output<'_>) {
        let Some(driver) = self.driver else { return };
        if driver.devices(|found| self.converter.driver_device(found, output)).is_ok() {
            self.driver = None;
        }
    }

    fn drain(&mut self, output: &mut Output<'_>) -> Result<(), Refusal> {
        self.tell_devices(output);
        let Some(chain) = POOL.take_done() else { return Ok(()) };
        let clock = self.read_clock(output);
        for done in chain {
            self.walk(&done, output, |session, record, output| {
                // SAFETY: CUPTI wrote the record, and is there.
                unsafe { session.converter.convert(record, output) };
            });
            POOL.recycle(done.index);
            output.publish(self.last_clock.after);
        }
        clock
    }

    /// Does something with each record of a buffer: the bytes from its beginning to the end of what is valid.
    fn walk<'o>(
        &mut self,
        done: &Done,
        output: &mut Output<'o>,
        mut each: impl FnMut(&mut Self, &[u8], &mut Output<'o>),
    ) {
        let base = done.base.as_ptr();
        let mut record: *mut u8 = null_mut();
        let mut least = 0;
        loop {
            // SAFETY: the buffer is ours now, with `valid` bytes of records in it; the record is null or the last one.
            let result = unsafe { (self.functions.next_record)(base, done.valid, &raw mut record) };
            if result == code::MAX_LIMIT_REACHED {
                return;
            }
            let offset = record.addr().wrapping_sub(base.addr());
            // Each record begins behind the one before: so there is an end, whatever CUPTI says.
            if result != code::SUCCESS || offset < least || offset >= done.valid {
                output.count(Lost::Malformed, 1);
                return;
            }
            least = offset + 8;
            let begin = base.wrapping_add(offset);
            // SAFETY: from here to the end of the valid bytes is within the buffer, which nobody else has.
            let bytes = unsafe { core::slice::from_raw_parts(begin, done.valid - offset) };
            each(self, bytes, output);
        }
    }

    fn read_clock(&mut self, output: &mut Output<'_>) -> Result<(), Refusal> {
        let pair = Pair::read(&self.functions).map_err(subscriber::refusal)?;
        if !self.clock.holds(&self.last_clock, &pair) {
            return Err(Refusal::new(Reason::ForeignClock, 0));
        }
        self.last_clock = pair;
        output.record(&pair.record());
        Ok(())
    }

    fn restore_thread_ids(&mut self) {
        if let Some(before) = self.thread_ids_before.take() {
            // SAFETY: takes a number.
            let _ = unsafe { (self.functions.set_thread_id_type)(before) };
        }
    }
}

fn register(functions: &Functions) -> Result<(), Refusal> {
    // SAFETY: the two functions are there for as long as the process is.
    let registered = unsafe { (functions.register_callbacks)(buffer_requested, buffer_completed) };
    if registered == code::SUCCESS { Ok(()) } else { Err(subscriber::refusal(registered)) }
}

/// Makes records carry the thread's id; what they carried before, where that was something else.
fn set_thread_ids(functions: &Functions) -> Option<u32> {
    let mut before = 0;
    // SAFETY: fills the word that it is given.
    let asked = unsafe { (functions.get_thread_id_type)(&raw mut before) };
    // SAFETY: takes a number.
    let set = unsafe { (functions.set_thread_id_type)(thread_id::SYSTEM) };
    (asked == code::SUCCESS && set == code::SUCCESS && before != thread_id::SYSTEM).then_some(before)
}

/// What CUPTI's clock is, and a reading of it.
fn read_clock(functions: &Functions) -> Result<(Clock, Pair), Refusal> {
    let first = Pair::read(functions).map_err(subscriber::refusal)?;
    let mut pairs = [first; SAMPLES];
    for pair in pairs.iter_mut().skip(1) {
        sys::sleep_ns(SAMPLE_INTERVAL_NS);
        *pair = Pair::read(functions).map_err(subscriber::refusal)?;
    }
    let clock = Clock::of(&pairs).ok_or(Refusal::new(Reason::ForeignClock, 0))?;
    Ok((clock, pairs.last().copied().unwrap_or(first)))
}
