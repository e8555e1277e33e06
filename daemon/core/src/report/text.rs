//! Numbers and names for people.

use std::borrow::Cow;

/// A duration in the unit that keeps three or four digits: `412 ns`, `17.3 µs`, `96.2 ms`, `30.0 s`.
#[must_use]
pub fn duration(ns: u64) -> String {
    let value = ns as f64;
    // Bounds lie where rounding would show a thousand of the smaller unit.
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..999_950 => format!("{:.1} µs", value / 1e3),
        999_950..999_950_000 => format!("{:.1} ms", value / 1e6),
        999_950_000..99_995_000_000 => format!("{:.2} s", value / 1e9),
        _ => format!("{:.0} s", value / 1e9),
    }
}

/// Text from a file, fit for a terminal: control characters would move the cursor or recolour the screen.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// A moment of Unix time as `2026-01-31 07:05:09 UTC`. None where it is before 2001 or after 2200: then the clock is another one.
#[must_use]
pub fn civil(unix_ns: i64) -> Option<String> {
    let seconds = u64::try_from(unix_ns).ok()? / 1_000_000_000;
    let (mut days, in_day) = (seconds / 86_400, seconds % 86_400);
    let is_leap =
        |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    (2001..2200)
        .contains(&year)
        .then(|| format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", days + 1))
}

/// `once` or `n times`.
#[must_use]
pub fn times(n: u64) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// A share in percent with one decimal; tiny but real shares are not shown as 0.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == 0 {
        return "0.0 %".to_owned();
    }
    let share = part as f64 / whole as f64 * 100.0;
    if share < 0.05 { "<0.1 %".to_owned() } else { format!("{share:.1} %") }
}

/// A bar of at most `width` cells, in eighths.
#[must_use]
pub fn bar(part: u64, whole: u64, width: u32) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if whole == 0 {
        return String::new();
    }
    let cells = u128::from(part) * u128::from(width) * 8 / u128::from(whole);
    let cells = usize::try_from(cells).unwrap_or(0).min(width as usize * 8);
    let mut bar = "█".repeat(cells / 8);
    if let Some(last) = EIGHTHS.get(cells % 8).filter(|_| cells % 8 > 0) {
        bar.push(*last);
    }
    if bar.is_empty() && part > 0 { "▏".to_owned() } else { bar }
}

/// A name of at most `width` characters: where Python is installed, then template and call arguments, go first, then the
/// middle.
#[must_use]
pub fn short_name(name: &str, width: usize) -> String {
    let clean = printable(name);
    let mut name = without_install_path(&clean);
    if name.chars().count() > width
        && let Some(at) = argument_list(name)
    {
        name = name.get(..at).unwrap_or(name);
    }
    let count = name.chars().count();
    if count <= width {
        return name.to_owned();
    }
    let head = width * 2 / 3;
    let tail = width - head - 1;
    let start: String = name.chars().take(head).collect();
    let end: String = name.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

/// A Python frame without where its package is installed: `/opt/…/site-packages/torch/x.py(5): f` → `torch/x.py(5): f`.
#[must_use]
pub fn without_install_path(name: &str) -> &str {
    ["/site-packages/", "/dist-packages/"]
        .iter()
        .find_map(|installed| name.rsplit_once(installed))
        .map_or(name, |(_, module)| module)
}

/// A frame as the narrow boxes of a flamegraph want it, the function first: `/opt/x/train.py(58): train` →
/// `train (train.py:58)`. Other frames stay as they are.
#[must_use]
pub fn function_first(name: &str) -> Cow<'_, str> {
    let parts = || {
        let (place, function) = name.split_once("): ")?;
        let (path, line) = place.rsplit_once('(')?;
        let is_line = !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit());
        is_line.then(|| (path.rsplit('/').next().unwrap_or(path), line, function))
    };
    match parts() {
        Some((file, line, function)) => Cow::Owned(format!("{function} ({file}:{line})")),
        None => Cow::Borrowed(name),
    }
}

/// Where the argument list at the end of a demangled name begins, if anything precedes it.
fn argument_list(name: &str) -> Option<usize> {
    if !name.ends_with(')') {
        return None;
    }
    let mut depth = 0usize;
    for (at, c) in name.char_indices().rev() {
        match c {
            ')' => depth += 1,
            '(' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return (at > 0).then_some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{bar, civil, duration, function_first, percent, short_name};

    #[test]
    fn moments_have_a_date() {
        assert_eq!(civil(1_709_164_799_000_000_000).as_deref(), Some("2024-02-28 23:59:59 UTC"));
        assert_eq!(civil(1_709_164_800_000_000_000).as_deref(), Some("2024-02-29 00:00:00 UTC"));
        assert_eq!(civil(1_798_761_599_999_999_999).as_deref(), Some("2026-12-31 23:59:59 UTC"));
        assert_eq!(civil(5_000), None, "a clock that counts from boot");
        assert_eq!(civil(-1), None);
    }

    #[test]
    fn durations_keep_their_digits() {
        assert_eq!(duration(412), "412 ns");
        assert_eq!(duration(17_300), "17.3 µs");
        assert_eq!(duration(999_960), "1.0 ms");
        assert_eq!(duration(96_200_000), "96.2 ms");
        assert_eq!(duration(30_000_000_000), "30.00 s");
        assert_eq!(duration(240_000_000_000), "240 s");
    }

    #[test]
    fn a_small_share_is_not_shown_as_nothing() {
        assert_eq!(percent(1, 1_000_000), "<0.1 %");
        assert_eq!(percent(0, 5), "0.0 %");
        assert_eq!(bar(1, 1_000_000, 20), "▏");
        assert_eq!(bar(1, 2, 10), "█████");
    }

    #[test]
    fn a_flamegraph_has_the_function_first() {
        assert_eq!(function_first("/opt/x/train.py(58): train"), "train (train.py:58)");
        assert_eq!(function_first("nn.Module: Linear"), "nn.Module: Linear");
        assert_eq!(function_first("void f(int): g"), "void f(int): g");
    }

    #[test]
    fn long_kernel_names_lose_their_arguments_first() {
        let name = "void at::native::reduce_kernel<512>(at::native::ReduceOp<float, float, unsigned int, 4>)";
        assert_eq!(short_name(name, 40), "void at::native::reduce_kernel<512>");
        assert_eq!(short_name("short", 40), "short");
        assert_eq!(short_name("/opt/lib/python3.7/site-packages/torch/x.py(5): f", 60), "torch/x.py(5): f");
        assert_eq!(short_name(&"x".repeat(100), 10).chars().count(), 10);
    }
}
