//! Writes HTML whose markup comes from this program alone.
//!
//! What always holds: markup is a literal of this program ([`put!`] takes nothing else), and every other text is escaped, cut at
//! [`MOST_CHARACTERS`] and freed of what would change how its surroundings look (control characters, changes of writing
//! direction). So nothing in a capture can become markup, whatever its names are.

use std::fmt::{self, Display, Write};

/// Characters of one text that are shown. The longest sentences of the report have a few hundred.
pub(super) const MOST_CHARACTERS: usize = 1000;

/// A page in the making.
#[derive(Debug, Default)]
pub(super) struct Html {
    out: String,
}

/// Writes a sequence of pieces: literals are markup, expressions in parentheses are text.
macro_rules! put {
    ($html:expr; $($piece:tt)*) => {{ $( $crate::page::html::put_one!($html, $piece); )* }};
}

macro_rules! put_one {
    ($html:expr, ($text:expr)) => {
        $html.text(&$text)
    };
    ($html:expr, $markup:literal) => {
        $html.markup($markup)
    };
}

pub(super) use {put, put_one};

impl Html {
    /// Appends markup.
    pub(super) fn markup(&mut self, markup: &'static str) {
        self.out.push_str(markup);
    }

    /// Appends text, fit for an element's content and for an attribute in quotes.
    pub(super) fn text(&mut self, text: &impl Display) {
        let mut escaped = Escape { out: &mut self.out, left: MOST_CHARACTERS };
        // It fails where the text is cut, and nowhere else.
        let _ = write!(escaped, "{text}");
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

struct Escape<'a> {
    out: &'a mut String,
    left: usize,
}

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                self.out.push('…');
                return Err(fmt::Error);
            }
            self.left -= 1;
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\'' => self.out.push_str("&#39;"),
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}') => {
                    self.out.push(' ');
                }
                c if turns_direction(c) => self.out.push('\u{fffd}'),
                c => self.out.push(c),
            }
        }
        Ok(())
    }
}

/// Whether a character changes the writing direction of what follows it, in which numbers could be made to read backwards.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A whole number with its digits in groups of three: `46 100 000`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            // Narrow, and no line breaks there.
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A share in percent as a coordinate: at most 100, two decimals, which is a tenth of a pixel.
pub(super) fn coordinate(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 100.0).min(100.0) };
    format!("{share:.2}")
}

#[cfg(test)]
mod tests {
    use super::{Html, MOST_CHARACTERS, grouped};

    fn page(text: &str) -> String {
        let mut html = Html::default();
        put!(html; "<b title=\"" (text) "\">" (text) "</b>");
        html.finish()
    }

    #[test]
    fn text_never_becomes_markup() {
        let page = page("</script><img src=x onerror='a(\"&\")'>");
        assert_eq!(page.matches('<').count(), 2, "{page}");
        assert_eq!(page.matches('"').count(), 2, "{page}");
        assert!(!page.contains('\''), "{page}");
    }

    #[test]
    fn text_does_not_disturb_its_surroundings() {
        assert_eq!(page("a\u{202e}b\u{7}c\nd\u{85}"), "<b title=\"a\u{fffd}b c d \">a\u{fffd}b c d </b>");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let page = page(&"x".repeat(10_000));
        assert_eq!(page.matches('x').count(), 2 * MOST_CHARACTERS);
        assert_eq!(page.matches('…').count(), 2);
    }

    #[test]
    fn digits_stand_in_threes() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1\u{202f}000"), (46_100_000, "46\u{202f}100\u{202f}000")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
