//! Which frame of a stack a person would look at first.
//!
//! Frames read `path/file.py(42): function` where the line is known, else `function (libfoo.so)` or `function [kernel]`.

use stallscope_schemas::units::{StackId, StringId};

use crate::capture::Tables;
use crate::report::text::{printable, short_name};

/// A place in the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `path/file.py:42`, or the function where no line is known.
    pub(crate) line: String,
    /// For a sentence: `file.py:42 in function`.
    pub(crate) text: String,
}

/// Parts of paths of files that belong to the interpreter and to installed packages.
const INSTALLED: &[&str] = &["/site-packages/", "/dist-packages/", "/lib/python", "/lib64/python"];

/// Native objects whose functions are on the way to everything.
const RUNTIME: &[&str] = &[
    "libc.",
    "libc-",
    "libpthread",
    "ld-linux",
    "ld-2",
    "libm.",
    "libdl",
    "librt",
    "libpython",
    "python3",
    "libstdc++",
    "libgcc_s",
    "ld-musl",
];

/// Splits `path/file.py(42): function`.
fn with_line(frame: &str) -> Option<(&str, &str, &str)> {
    let (place, function) = frame.split_once("): ")?;
    let (file, line) = place.rsplit_once('(')?;
    let is_number = !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some((file, line, function))
}

/// How much a frame looks like code of whoever asks: higher is better.
pub(crate) fn rank(frame: &str) -> u8 {
    if let Some((file, ..)) = with_line(frame) {
        let python = std::path::Path::new(file).extension().is_some_and(|e| e == "py");
        let installed = file.starts_with('<') || INSTALLED.iter().any(|part| file.contains(part));
        return match (python, installed) {
            (true, false) => 5,
            (false, false) if !file.starts_with('<') => 4,
            (true, true) => 3,
            _ => 1,
        };
    }
    if frame.ends_with(']') || frame.starts_with('[') || frame.starts_with("0x") {
        return 0;
    }
    let module = frame.rsplit_once(" (").map_or("", |(_, module)| module);
    if RUNTIME.iter().any(|r| module.starts_with(r)) { 1 } else { 2 }
}

/// The innermost frame of those that look most like the user's own code. Native code with a line counts less than Python
/// of the user, because a library with debug information is no user's code either.
pub(crate) fn user_frame(stack: StackId, tables: &Tables) -> Option<Place> {
    let names = tables.stack_names(stack);
    best_of(names.iter().map(|&name| (name, rank(tables.string(name)))), tables)
}

/// The same of frames with their ranks.
pub(crate) fn best_of(frames: impl Iterator<Item = (StringId, u8)>, tables: &Tables) -> Option<Place> {
    let mut count = 0;
    // `max_by_key` keeps the last of equals: the innermost.
    let best = frames.inspect(|_| count += 1).max_by_key(|(_, rank)| *rank);
    let (name, _) = best.filter(|(_, rank)| *rank > 0 || count == 1)?;
    let best = tables.string(name);
    Some(match with_line(best) {
        Some((file, line, function)) => {
            let short = file.rsplit('/').next().unwrap_or(file);
            Place {
                line: printable(&format!("{file}:{line}")).into_owned(),
                text: format!("{}:{line} in {}", short_name(short, 40), short_name(function, 40)),
            }
        }
        None => Place { line: printable(best).into_owned(), text: short_name(best, 60) },
    })
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn the_users_python_is_preferred_to_installed_and_native_code() {
        let ordered = [
            "/job/train.py(12): main",
            "kernels.cpp(80): step",
            "/usr/lib/python3.11/multiprocessing/connection.py(250): recv",
            "do_reduce (libmpi.so.40)",
            "__read (libc.so.6)",
            "ksys_read [kernel]",
        ];
        let ranks: Vec<u8> = ordered.iter().map(|f| rank(f)).collect();
        assert!(ranks.windows(2).all(|w| w[0] > w[1]), "{ranks:?}");
    }
}
