//! A layout in the form in which the kernel half reads it.

use zerocopy::{Immutable, IntoBytes};

use super::PythonProcess;
use super::layout::FRAME_BYTES;

/// A field that this version does not have.
const NONE: u16 = u16::MAX;

/// `struct python_process` of `bpf/python.bpf.h`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Entry {
    interpreters: u64,
    interpreter_next: u32,
    interpreter_threads: u32,
    thread_next: u16,
    thread_id: u16,
    thread_frame: u16,
    cframe_frame: u16,
    frame_bytes: u16,
    frame_previous: u16,
    frame_code: u16,
    frame_instruction: u16,
    frame_owner: u16,
    instructions: u16,
    foreign_owner: u8,
    instruction_is_index: u8,
    reserved: [u8; 2],
}

impl Entry {
    /// `None` where an offset does not fit, which no layout that was accepted has.
    pub(crate) fn of(process: &PythonProcess) -> Option<Self> {
        let short = |offset: u32| u16::try_from(offset).ok();
        let layout = &process.layout;
        let frame = &layout.frame;
        let (owner, foreign_owner) = frame.owner.map_or((None, 0), |(at, from)| (Some(at), from));
        let words = [frame.previous, frame.code, frame.instruction].map(|offset| offset + 8);
        let end = words.into_iter().chain(owner.map(|at| at + 1)).max()?;
        if end > FRAME_BYTES || words.iter().any(|offset| offset % 8 != 0) {
            return None;
        }
        Some(Self {
            interpreters: process.runtime.wrapping_add(u64::from(layout.interpreters)),
            interpreter_next: layout.interpreter_next,
            interpreter_threads: layout.interpreter_threads,
            thread_next: short(layout.thread_next)?,
            thread_id: short(layout.thread_id)?,
            thread_frame: short(layout.thread_frame)?,
            cframe_frame: layout.cframe_frame.map_or(Some(NONE), short)?,
            frame_bytes: short(end)?,
            frame_previous: short(frame.previous)?,
            frame_code: short(frame.code)?,
            frame_instruction: short(frame.instruction)?,
            frame_owner: owner.map_or(Some(NONE), short)?,
            instructions: short(layout.code.instructions.unwrap_or(0))?,
            foreign_owner,
            instruction_is_index: u8::from(frame.instruction_is_index),
            reserved: [0; 2],
        })
    }
}
