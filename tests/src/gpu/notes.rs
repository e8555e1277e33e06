//! What a section finds out, one line of JSON each, written when it is found: a section that is killed leaves what it had.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::stats::Spread;

/// One thing found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum Note {
    /// A number that was measured.
    Number {
        /// Of what.
        what: String,
        /// In what unit.
        unit: String,
        /// The number.
        #[serde(flatten)]
        spread: Spread,
        /// What was run to get it.
        command: String,
    },
    /// Something that is not a number.
    Text {
        /// A sentence.
        text: String,
    },
    /// A part, or with an empty `what` the whole section, could not be tried.
    Skipped {
        /// Which part.
        what: String,
        /// What is missing.
        why: String,
    },
    /// A part went wrong.
    Failed {
        /// What, and how.
        what: String,
    },
    /// A question of docs/gpu/OPEN.md has an answer.
    Answer {
        /// Its number.
        question: u32,
        /// The answer.
        answer: String,
    },
    /// A file that is worth keeping.
    File {
        /// Its path below the folder of the report.
        path: String,
        /// What it is.
        what: String,
    },
}

/// Appends notes to a file.
#[derive(Debug)]
pub struct Notebook(File);

impl Notebook {
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).truncate(true).write(true).open(path).map(Self)
    }

    /// Adds one, in one write.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn add(&mut self, note: &Note) -> io::Result<()> {
        let mut line = serde_json::to_vec(note)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// The notes in a file; the last line may be cut.
#[must_use]
pub fn read(path: &Path) -> Vec<Note> {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Note, Notebook, Spread, read};

    #[test]
    fn what_was_noted_before_a_line_that_is_cut_is_read() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("notes");
        let number = Note::Number {
            what: "attach".into(),
            unit: "ms".into(),
            spread: Spread { median: 2.5, low: 1.0, high: 3.0, count: 4 },
            command: "a | b".into(),
        };
        let answer = Note::Answer { question: 3, answer: "yes".into() };
        let mut notes = Notebook::create(&path)?;
        notes.add(&number)?;
        notes.add(&answer)?;
        notes.0.write_all(br#"{"t":"text","text":"cut"#)?;
        assert_eq!(read(&path), [number, answer]);
        assert_eq!(read(&folder.path().join("none")), []);
        Ok(())
    }
}
