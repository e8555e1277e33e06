//! Folded stacks: `outer;inner 123`, one stack a line, the weight in nanoseconds.
//!
//! The format has no quoting, and its readers guess: a line that begins with `# ` is a comment, and a number before the
//! weight is the first column of a comparison. So a frame never contains what a reader would take for structure.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::folded::Folded;

/// Writes every stack as a line.
///
/// # Errors
/// Whatever the output reports.
pub fn write_folded(stacks: &Folded, mut out: impl Write) -> io::Result<()> {
    let mut line = String::new();
    for (frames, ns) in stacks.iter() {
        line.clear();
        push_stack(&mut line, frames);
        writeln!(out, "{line} {ns}")?;
    }
    out.flush()
}

/// Appends the frames of a stack, without its weight.
pub(super) fn push_stack(line: &mut String, frames: &[String]) {
    let from = line.len();
    for (at, frame) in frames.iter().enumerate() {
        if at > 0 {
            line.push(';');
        }
        line.push_str(&clean(frame));
    }
    // Before the weight, a number would read as a weight too.
    let stack = line.get(from..).unwrap_or_default();
    if let Some((before, last)) = stack.rsplit_once(' ')
        && last.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    {
        line.insert(from + before.len() + 1, '#');
    }
    if frames.is_empty() {
        line.push_str(UNNAMED);
    }
}

/// What an empty frame is called: readers drop nameless ones.
const UNNAMED: &str = "(unnamed)";

/// A frame's name without separators and control characters.
fn clean(frame: &str) -> Cow<'_, str> {
    let is_bad = |c: char| {
        c == ';' || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    };
    let trimmed = frame.trim();
    if trimmed.is_empty() {
        return Cow::Borrowed(UNNAMED);
    }
    let mut name = Cow::Borrowed(trimmed);
    if trimmed.contains(is_bad) {
        let replaced = trimmed.chars().map(|c| match c {
            ';' => ':',
            c if is_bad(c) => ' ',
            c => c,
        });
        name = Cow::Owned(replaced.collect());
    }
    if let Some(rest) = name.strip_prefix("# ") {
        name = Cow::Owned(format!("#{rest}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::{clean, write_folded};
    use crate::folded::Folded;

    fn stacks(of: &[(&[&str], u64)]) -> Folded {
        let mut folded = Folded::default();
        for (frames, ns) in of {
            folded.add(frames.iter().map(|&f| f.to_owned()).collect(), *ns);
        }
        folded
    }

    #[test]
    fn a_stack_is_a_line_with_its_nanoseconds() -> std::io::Result<()> {
        let mut out = Vec::new();
        write_folded(&stacks(&[(&["a", "b c"], 5), (&["a"], 7), (&[], 2)]), &mut out)?;
        assert_eq!(String::from_utf8_lossy(&out), "(unnamed) 2\na 7\na;b c 5\n");
        Ok(())
    }

    #[test]
    fn a_number_at_the_end_of_a_stack_is_no_weight() -> std::io::Result<()> {
        let mut out = Vec::new();
        write_folded(
            &stacks(&[(&["gpu 0", "graph 12"], 5), (&["gpu 0", "v 1.5"], 6), (&["gpu 0", "x"], 7)]),
            &mut out,
        )?;
        assert_eq!(String::from_utf8_lossy(&out), "gpu 0;graph #12 5\ngpu 0;v #1.5 6\ngpu 0;x 7\n");
        Ok(())
    }

    #[test]
    fn a_frame_cannot_pass_for_structure() {
        for (frame, written) in [
            ("[u8; 4]", "[u8: 4]"),
            ("two\nlines\r", "two lines"),
            ("# comment", "#comment"),
            ("", "(unnamed)"),
            ("  ", "(unnamed)"),
            ("train.py(118): forward", "train.py(118): forward"),
        ] {
            assert_eq!(clean(frame), written, "{frame:?}");
        }
    }
}
