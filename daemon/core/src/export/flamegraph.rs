//! Flamegraphs as SVG, drawn by inferno. The picture works without a network: script and style are inside.

use std::fmt::Write as _;
use std::io::{self, Write};

use inferno::flamegraph::color::{BackgroundColor, BasicPalette, Palette};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::folded::push_stack;
use crate::folded::Folded;
use crate::report::text::function_first;

/// Narrower frames are not drawn, in percent of the whole: half a pixel of a wide screen.
const MIN_WIDTH_PERCENT: f64 = 0.02;

/// Sums from here on, 146 years, are not drawn.
const MOST_TOTAL_NS: u64 = 1 << 62;

/// What colours say at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hue {
    /// Time in which a device worked: warm.
    #[default]
    Busy,
    /// Time in which a device had nothing to do: teal. Inferno's blue is too dark for black text.
    Idle,
    /// Time spent waiting for someone: red.
    Waiting,
    /// Time on a CPU: green.
    Host,
}

impl Hue {
    fn palette(self) -> (BasicPalette, BackgroundColor) {
        match self {
            Self::Busy => (BasicPalette::Hot, BackgroundColor::Grey),
            Self::Idle => (BasicPalette::Aqua, BackgroundColor::Grey),
            Self::Waiting => (BasicPalette::Red, BackgroundColor::Grey),
            Self::Host => (BasicPalette::Green, BackgroundColor::Grey),
        }
    }
}

/// What is written around the stacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlamegraphStyle {
    /// Headline.
    pub title: String,
    /// Line below the headline; none where empty.
    pub subtitle: String,
    /// What the width is, without a unit: `GPU idle`. Shown after the number of every frame.
    pub count_name: String,
    /// Colours.
    pub hue: Hue,
}

/// Draws stacks. Without any, the picture says so.
///
/// # Errors
/// Whatever the output reports.
pub fn write_flamegraph(stacks: &Folded, style: &FlamegraphStyle, out: impl Write) -> io::Result<()> {
    let mut lines = Lines::default();
    for (frames, ns) in stacks.iter() {
        lines.push(frames, &[ns]);
    }
    draw(&lines, stacks.total_ns(), style, out)
}

/// Draws the stacks of `after`, coloured by how much each changed: red grew, blue shrank. What is only in `before` has no
/// width and is not drawn; the difference of the two totals belongs into the subtitle.
///
/// # Errors
/// Whatever the output reports.
pub fn write_diff_flamegraph(
    before: &Folded,
    after: &Folded,
    style: &FlamegraphStyle,
    out: impl Write,
) -> io::Result<()> {
    let mut lines = Lines::default();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    // Both are in the order of their frames: a merge of two sorted lists.
    loop {
        let (frames, old_ns, new_ns) = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(&(a, ns)), None) => (a, ns, 0),
            (None, Some(&(b, ns))) => (b, 0, ns),
            (Some(&(a, old_ns)), Some(&(b, new_ns))) => match a.cmp(b) {
                std::cmp::Ordering::Less => (a, old_ns, 0),
                std::cmp::Ordering::Greater => (b, 0, new_ns),
                std::cmp::Ordering::Equal => (a, old_ns, new_ns),
            },
        };
        old.next_if(|(a, _)| *a == frames);
        new.next_if(|(b, _)| *b == frames);
        lines.push(frames, &[old_ns, new_ns]);
    }
    draw(&lines, after.total_ns(), style, out)
}

/// Folded lines, one after the other in one text.
#[derive(Debug, Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn push(&mut self, frames: &[String], weights: &[u64]) {
        let labels: Vec<String> = frames.iter().map(|frame| function_first(frame).into_owned()).collect();
        push_stack(&mut self.text, &labels);
        for ns in weights {
            // Writing to a string cannot fail.
            let _ = write!(self.text, " {ns}");
        }
        self.text.push('\n');
    }
}

fn draw(lines: &Lines, total_ns: u64, style: &FlamegraphStyle, mut out: impl Write) -> io::Result<()> {
    if total_ns == 0 {
        return write_nothing(style, out);
    }
    // Inferno adds weights up without a check.
    if total_ns >= MOST_TOTAL_NS {
        let text = "the times add up to more than a century; those of the capture cannot be right";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let (unit, factor) = unit(total_ns);
    let (palette, background) = style.hue.palette();
    let mut options = Options::default();
    options.title.clone_from(&style.title);
    options.subtitle = Some(style.subtitle.clone()).filter(|s| !s.is_empty());
    options.count_name = format!("{unit} {}", style.count_name).trim_end().to_owned();
    options.name_type = "Frame:".to_owned();
    options.factor = factor;
    options.colors = Palette::Basic(palette);
    options.bgcolors = Some(background);
    // A colour follows from the name, so that pictures can be compared and do not change between runs.
    options.deterministic = true;
    options.min_width = MIN_WIDTH_PERCENT;
    options.font_type = "monospace".to_owned();
    options.font_width = 0.6;
    options.text_truncate_direction = TextTruncateDirection::Right;
    // Stacks come in the order of their frames, which keeps common callers together. Inferno's own order, that of the
    // lines as text, draws `f` twice where a sibling `f(int)` sorts between `f` and `f;g`. Its mode for flame charts takes
    // lines as they are, latest first.
    options.flame_chart = true;
    from_lines(&mut options, lines.text.lines().rev(), &mut out)?;
    out.flush()
}

/// The unit in which numbers have three to seven digits, and how to get there from nanoseconds. Inferno prints whole
/// numbers only.
fn unit(total_ns: u64) -> (&'static str, f64) {
    match total_ns {
        10_000_000_000.. => ("ms", 1e-6),
        10_000_000.. => ("µs", 1e-3),
        _ => ("ns", 1.0),
    }
}

fn write_nothing(style: &FlamegraphStyle, mut out: impl Write) -> io::Result<()> {
    let title = xml_text(&style.title);
    let what = if style.count_name.is_empty() { "time of this kind" } else { &style.count_name };
    writeln!(
        out,
        r##"<?xml version="1.0" standalone="no"?>
<svg version="1.1" width="1200" height="120" viewBox="0 0 1200 120" xmlns="http://www.w3.org/2000/svg">
<rect width="100%" height="100%" fill="#f8f8f8"/>
<g font-family="monospace" text-anchor="middle" fill="#333">
<text x="50%" y="40" font-size="17">{title}</text>
<text x="50%" y="80" font-size="13">Nothing to show: this capture has no {}.</text>
</g>
</svg>"##,
        xml_text(what)
    )?;
    out.flush()
}

fn xml_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{FlamegraphStyle, Hue, write_diff_flamegraph, write_flamegraph};
    use crate::folded::Folded;

    fn stacks(of: &[(&str, u64)]) -> Folded {
        let mut folded = Folded::default();
        for (frames, ns) in of {
            folded.add(frames.split(';').map(str::to_owned).collect(), *ns);
        }
        folded
    }

    fn style() -> FlamegraphStyle {
        FlamegraphStyle {
            title: "a & b".to_owned(),
            subtitle: "sub".to_owned(),
            count_name: "GPU idle".to_owned(),
            hue: Hue::Idle,
        }
    }

    fn svg(folded: &Folded) -> std::io::Result<String> {
        let mut out = Vec::new();
        write_flamegraph(folded, &style(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn frames_carry_their_time_in_a_readable_unit() -> std::io::Result<()> {
        let picture = svg(&stacks(&[("gpu 0;wait", 3_000_000_000), ("gpu 0;copy", 9_000_000_000)]))?;
        assert!(picture.contains("<title>wait (3,000 ms GPU idle, 25.00%)</title>"), "{picture}");
        assert!(picture.contains("<title>gpu 0 (12,000 ms GPU idle, 100.00%)</title>"));
        let picture = svg(&stacks(&[("a", 1500)]))?;
        assert!(picture.contains("a (1,500 ns GPU idle, 100.00%)"));
        Ok(())
    }

    #[test]
    fn a_frame_that_ends_in_a_number_keeps_its_weight() -> std::io::Result<()> {
        let picture = svg(&stacks(&[("root;graph 12", 100), ("root;x", 300)]))?;
        assert!(picture.contains("graph #12 (100 ns GPU idle, 25.00%)"), "{picture}");
        Ok(())
    }

    #[test]
    fn callers_whose_names_sort_around_the_separator_are_drawn_once() -> std::io::Result<()> {
        let picture = svg(&stacks(&[("a", 10), ("a b;y", 10), ("a;x", 10)]))?;
        assert_eq!(picture.matches("<title>a (").count(), 1, "{picture}");
        Ok(())
    }

    #[test]
    fn nothing_is_a_picture_that_says_so() -> std::io::Result<()> {
        let picture = svg(&Folded::default())?;
        assert!(picture.contains("a &amp; b") && picture.contains("no GPU idle"), "{picture}");
        Ok(())
    }

    #[test]
    fn the_same_stacks_give_the_same_picture() -> std::io::Result<()> {
        let folded = stacks(&[("a;b", 10), ("a;c", 20), ("d", 5)]);
        assert_eq!(svg(&folded)?, svg(&folded)?);
        Ok(())
    }

    #[test]
    fn a_difference_is_as_wide_as_what_is_now() -> std::io::Result<()> {
        let (before, after) = (stacks(&[("a;b", 10), ("a;gone", 7)]), stacks(&[("a;b", 30), ("a;new", 10)]));
        let mut out = Vec::new();
        write_diff_flamegraph(&before, &after, &style(), &mut out)?;
        let picture = String::from_utf8_lossy(&out);
        assert!(picture.contains("<title>b (30 ns GPU idle, 75.00%; +50.00%)</title>"), "{picture}");
        assert!(picture.contains("<title>new (10 ns GPU idle, 25.00%; +25.00%)</title>"), "{picture}");
        let mut out = Vec::new();
        write_diff_flamegraph(&before, &Folded::default(), &style(), &mut out)?;
        assert!(String::from_utf8_lossy(&out).contains("Nothing to show"));
        Ok(())
    }
}
