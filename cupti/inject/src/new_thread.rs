//! The new thread: what it is asked to do, and what it answers.
//!
//! It runs the other half of the seed: it makes one call at a time, as the block in its memory says, and ends when
//! nothing is asked of it for ten seconds. So an injector that dies leaves nothing that lasts. All that is read from
//! the block is the target's word and used as such.

use std::io;
use std::mem::offset_of;
use std::thread;
use std::time::{Duration, Instant};

use zerocopy::IntoBytes;

use crate::Refusal;
use crate::arch::{Block, Request, TEXT_BYTES, block_at};
use crate::process::Process;

/// The new thread looks for orders every 0.15 ms.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// Which of the descriptors that it closes at its end a result becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Ring,
    Image,
    Cupti,
    /// The result is no descriptor.
    Not,
}

impl Keep {
    const fn index(self) -> u32 {
        match self {
            Self::Ring => 0,
            Self::Image => 1,
            Self::Cupti => 2,
            Self::Not => u32::MAX,
        }
    }
}

/// A thread of the target that makes calls.
#[derive(Debug)]
pub(crate) struct NewThread<'a> {
    process: &'a Process,
    block: u64,
    order: u32,
    /// How long an answer may take.
    within: Duration,
    /// As the target numbers it.
    pub(crate) inner_tid: u32,
    /// As this process numbers it.
    pub(crate) tid: i32,
}

impl<'a> NewThread<'a> {
    /// Tells the new thread that the borrowed one is out of its memory, and waits until it runs.
    pub(crate) fn meet(
        process: &'a Process,
        region: u64,
        within: Duration,
        left: impl FnOnce(),
    ) -> Result<Self, Refusal> {
        let mut new = Self { process, block: block_at(region), order: 0, within, inner_tid: 0, tid: 0 };
        new.write(offset_of!(Block, left), &1_u32)?;
        left();
        let began = Instant::now();
        while new.inner_tid == 0 {
            new.inner_tid = new.read_u32(offset_of!(Block, tid))?;
            new.pause(began, "start")?;
        }
        let pid = process.pid;
        new.tid = outer_tid(process, new.inner_tid).ok_or_else(|| match process.is_alive() {
            true => Refusal::Hostile { pid, what: "its new thread is not among its threads" },
            false => Refusal::Gone { pid },
        })?;
        Ok(new)
    }

    /// Calls a function.
    pub(crate) fn call(
        &mut self,
        what: &'static str,
        function: u64,
        arguments: &[u64],
    ) -> Result<u64, Refusal> {
        self.request(what, &Request { function, ..request(arguments) }).map(i64::cast_unsigned)
    }

    /// Makes a system call, of which the result may be a descriptor to be closed at the end.
    pub(crate) fn syscall(
        &mut self,
        what: &'static str,
        number: u32,
        arguments: &[u64],
        keep: Keep,
    ) -> Result<io::Result<i32>, Refusal> {
        let function = Request::SYSCALL;
        let number = number.into();
        let result =
            self.request(what, &Request { function, number, keep: keep.index(), ..request(arguments) })?;
        let result = i32::try_from(result).unwrap_or(-libc::EOVERFLOW);
        Ok(if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) })
    }

    /// Closes one of the descriptors that it keeps.
    pub(crate) fn close(&mut self, kept: Keep, fd: i32) -> Result<(), Refusal> {
        // Forgotten first: to close a number twice could close somebody else's.
        let at = offset_of!(Block, descriptors) + kept.index() as usize * size_of::<i32>();
        self.write(at, &-1_i32)?;
        let arguments = [u64::from(fd.unsigned_abs())];
        self.syscall("close a file", crate::arch::number::CLOSE, &arguments, Keep::Not).map(drop)
    }

    /// Calls a function with a pointer to what was written with [`Self::write_start`], and then nothing more: the thread
    /// is the function's. When that returns, `finally` is called, and the thread ends.
    pub(crate) fn start(mut self, function: u64, finally: Option<(u64, u64)>) -> Result<(), Refusal> {
        let (finally, finally_argument) = finally.unwrap_or((0, 0));
        let arguments = [self.block + offset_of!(Block, start) as u64];
        self.send(&Request { function, finally, finally_argument, last: 1, ..request(&arguments) })
    }

    /// The thread cleans up and ends. Whether it has.
    pub(crate) fn end(mut self) -> bool {
        let began = Instant::now();
        let sent = self.send(&request(&[]));
        while sent.is_ok() && self.process.has_thread(self.tid) {
            if began.elapsed() > self.within {
                return false;
            }
            thread::sleep(LOOK_EVERY);
        }
        sent.is_ok()
    }

    /// Writes text, NUL and all, and returns where it is.
    pub(crate) fn write_text(&mut self, text: &str) -> Result<u64, Refusal> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.truncate(TEXT_BYTES - 1);
        bytes.push(0);
        self.write_bytes(offset_of!(Block, text), &bytes)?;
        Ok(self.block + offset_of!(Block, text) as u64)
    }

    /// Writes the arguments of the agent's entry.
    pub(crate) fn write_start(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.write_bytes(offset_of!(Block, start), bytes)
    }

    /// Text of the target, up to its NUL.
    pub(crate) fn read_text(&self, address: u64) -> String {
        let mut bytes = [0; TEXT_BYTES];
        let read = self.process.peek(address, &mut bytes).unwrap_or(0);
        let text = bytes.get(..read).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn request(&mut self, what: &'static str, request: &Request) -> Result<i64, Refusal> {
        self.send(request)?;
        let began = Instant::now();
        while self.read_u32(offset_of!(Block, done))? != self.order {
            self.pause(began, what)?;
        }
        Ok(self.read_u64(offset_of!(Block, result))?.cast_signed())
    }

    fn send(&mut self, request: &Request) -> Result<(), Refusal> {
        self.write_bytes(offset_of!(Block, request), request.as_bytes())?;
        self.order += 1;
        let order = self.order;
        self.write(offset_of!(Block, order), &order)
    }

    /// Waits a little for an answer, unless none can come any more.
    fn pause(&self, began: Instant, what: &'static str) -> Result<(), Refusal> {
        let waited = began.elapsed();
        let pid = self.process.pid;
        if waited > self.within {
            return Err(Refusal::NoAnswer { pid, waited, what });
        }
        // A process that ended keeps its memory for as long as this one has it open.
        const BY_THEN_IT_IS_SLOW: Duration = Duration::from_millis(5);
        if waited > BY_THEN_IT_IS_SLOW && !self.process.is_alive() {
            return Err(Refusal::Gone { pid });
        }
        thread::sleep(LOOK_EVERY);
        Ok(())
    }

    fn write<T: IntoBytes + zerocopy::Immutable>(&self, at: usize, value: &T) -> Result<(), Refusal> {
        self.write_bytes(at, value.as_bytes())
    }

    fn write_bytes(&self, at: usize, bytes: &[u8]) -> Result<(), Refusal> {
        self.process
            .poke(self.block + at as u64, bytes)
            .map_err(|error| self.process.error("write to the memory of the new thread", error))
    }

    fn read_u64(&self, at: usize) -> Result<u64, Refusal> {
        self.process
            .peek_word(self.block + at as u64)
            .map_err(|error| self.process.error("read the memory of the new thread", error))
    }

    fn read_u32(&self, at: usize) -> Result<u32, Refusal> {
        let mut bytes = [0; 4];
        match self.process.peek(self.block + at as u64, &mut bytes) {
            Ok(4) => Ok(u32::from_ne_bytes(bytes)),
            Ok(_) => Err(Refusal::Gone { pid: self.process.pid }),
            Err(error) => Err(self.process.error("read the memory of the new thread", error)),
        }
    }
}

/// A request with these arguments, and nothing else.
fn request(given: &[u64]) -> Request {
    let mut arguments = [0; 6];
    for (argument, given) in arguments.iter_mut().zip(given) {
        *argument = *given;
    }
    Request {
        function: 0,
        number: 0,
        arguments,
        finally: 0,
        finally_argument: 0,
        keep: Keep::Not.index(),
        last: 0,
    }
}

/// Which thread it is that numbers itself so.
pub(crate) fn outer_tid(process: &Process, inner: u32) -> Option<i32> {
    let same = i32::try_from(inner).ok()?;
    let is = |tid: i32| {
        process.thread_status(tid).ok().and_then(|status| status.innermost("NSpid")) == Some(inner)
    };
    if is(same) {
        return Some(same);
    }
    process.threads().ok()?.into_iter().find(|tid| is(*tid))
}
