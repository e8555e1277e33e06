//! What a device's communication was at each moment, when several kernels were resident.

use stallscope_schemas::units::{DeviceId, TimeNs};

use super::lanes::Lane;
use super::matching::{OperationId, Split};

/// What communication is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the last one to come to an operation, by its number.
    Wait(OperationId),
    /// Within the error of the clocks around the moment when the last one came.
    Uncertain,
    /// Moves data, for no longer than the same operation takes at its best.
    Floor,
    /// Moves data for longer than that.
    Excess,
    /// Cannot be told.
    Unsplit,
}

impl Phase {
    /// Of several kernels the one that gets on says what the device does; one that waits holds up nothing that moves.
    fn rank(self) -> u8 {
        match self {
            Self::Floor => 4,
            Self::Excess => 3,
            Self::Uncertain => 2,
            Self::Unsplit => 1,
            Self::Wait(_) => 0,
        }
    }
}

/// A stretch of one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// From when.
    pub from: TimeNs,
    /// Until when.
    pub to: TimeNs,
    /// What it is.
    pub phase: Phase,
}

/// The pieces of all kernels of a device; those of different kernels may overlap.
pub(super) fn pieces(lanes: &[Lane], splits: &[Vec<Option<Split>>], device: DeviceId) -> Vec<Stretch> {
    let mut out = Vec::new();
    for (lane, splits) in lanes.iter().zip(splits).filter(|(lane, _)| lane.device == device) {
        for (mark, split) in lane.marks.iter().zip(splits) {
            let mut at = mark.start;
            let mut piece = |to: TimeNs, phase: Phase| {
                let to = to.min(mark.end);
                if at < to {
                    out.push(Stretch { from: mark.own(at), to: mark.own(to), phase });
                    at = to;
                }
            };
            if let Some(split) = split {
                if let Some(operation) = split.waits_in {
                    piece(split.wait_until, Phase::Wait(operation));
                }
                piece(split.uncertain_until, Phase::Uncertain);
                if split.is_whole {
                    piece(split.floor_until, Phase::Floor);
                    piece(mark.end, Phase::Excess);
                }
            }
            piece(mark.end, Phase::Unsplit);
        }
    }
    out
}

/// Kernels at once that are looked at.
const MAX_OPEN: usize = 64;

/// Gives each moment to one of the pieces that cover it.
pub(super) fn resolve(mut pieces: Vec<Stretch>) -> Vec<Stretch> {
    pieces.sort_by_key(|piece| piece.from);
    let mut out: Vec<Stretch> = Vec::with_capacity(pieces.len());
    let mut open: Vec<Stretch> = Vec::new();
    let mut coming = pieces.into_iter().peekable();
    let mut now = TimeNs(i64::MIN);
    loop {
        while let Some(piece) = coming.next_if(|piece| piece.from <= now) {
            // A device has not so many kernels of communication at once; a damaged capture may.
            if open.len() < MAX_OPEN {
                open.push(piece);
            }
        }
        open.retain(|piece| piece.to > now);
        // Of several that wait, the one that waits longest holds the device up.
        let Some(best) = open.iter().max_by_key(|piece| (piece.phase.rank(), piece.to)).copied() else {
            let Some(next) = coming.peek() else { return out };
            now = next.from;
            continue;
        };
        let next = coming.peek().map_or(TimeNs(i64::MAX), |piece| piece.from);
        let ends = open.iter().map(|piece| piece.to).min().unwrap_or(best.to);
        let to = best.to.min(next).min(ends);
        match out.last_mut() {
            Some(last) if last.to == now && last.phase == best.phase => last.to = to,
            _ => out.push(Stretch { from: now, to, phase: best.phase }),
        }
        now = to;
    }
}
