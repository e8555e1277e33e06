//! The report of a run: Markdown for docs/gpu/, and the same as JSON.
//!
//! What always holds: where the driver was the double, or there was none, the first line says so, and no question is
//! shown as answered.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::facts::Facts;
use super::limit::Ended;
use super::notes::Note;
use super::plan::Section;
use super::questions::Question;

/// Lines of a section's own output that a report shows where it went wrong.
const TAIL: usize = 12;

/// How a section stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its turn has not come.
    NotRun,
    /// It runs, or the run was ended while it did.
    Running,
    /// It did all it could; parts may have been skipped.
    Done,
    /// Nothing of it could be tried.
    Skipped,
    /// Something in it went wrong.
    Failed,
    /// It was ended because its time was over.
    OverTime,
    /// It ended by a signal, or without having come to its end.
    Crashed,
}

impl State {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotRun => "not run",
            Self::Running => "running, or cut off",
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::Failed => "FAILED",
            Self::OverTime => "HUNG: ended when its time was over",
            Self::Crashed => "CRASHED",
        }
    }

    /// Of a section that ended so, with these notes.
    #[must_use]
    pub fn of(ended: Ended, notes: &[Note]) -> Self {
        let only_skipped = !notes.is_empty() && notes.iter().all(|n| matches!(n, Note::Skipped { .. }));
        match ended {
            Ended::OverTime { .. } => Self::OverTime,
            Ended::Signal(_) => Self::Crashed,
            Ended::Code(_) if notes.iter().any(|n| matches!(n, Note::Failed { .. })) => Self::Failed,
            Ended::Code(0) if only_skipped => Self::Skipped,
            Ended::Code(0) => Self::Done,
            Ended::Code(_) => Self::Crashed,
        }
    }

    /// Whether somebody has to look at it.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::OverTime | Self::Crashed)
    }
}

/// What came of a section.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub title: &'static str,
    /// How it stands.
    pub state: State,
    /// How long it took, s.
    pub took_s: f64,
    /// How long it may take, s.
    pub limit_s: u64,
    /// What it found out.
    pub notes: Vec<Note>,
    /// The end of its own output, where it went wrong.
    pub said: String,
}

impl Part {
    /// Of a section whose turn has not come.
    #[must_use]
    pub fn of(section: &Section) -> Self {
        Self {
            name: section.name,
            title: section.title,
            state: State::NotRun,
            took_s: 0.0,
            limit_s: section.limit_s,
            notes: Vec::new(),
            said: String::new(),
        }
    }
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What holds for every number in it.
    pub standing: String,
    /// The machine.
    pub facts: Facts,
    /// The sections in their order.
    pub sections: Vec<Part>,
    /// The questions, and the answers by section.
    pub questions: Vec<Asked>,
}

/// A question and what this run says to it.
#[derive(Clone, Debug, Serialize)]
pub struct Asked {
    /// Its number.
    pub number: u32,
    /// Its text.
    pub question: String,
    /// The answers, with the section that gives each. On the double they are no answers.
    pub answers: Vec<(String, String)>,
}

/// What is to be known before any number is read.
#[must_use]
pub fn standing(facts: &Facts) -> String {
    if !facts.has_device() {
        "No GPU: nothing here says anything about one.".to_owned()
    } else if facts.double {
        "This ran on the double (stand-ins for NVIDIA's libraries, docs/double.md): no figure here is a GPU's.".to_owned()
    } else {
        let device = facts.driver.get("device").map_or("?", String::as_str);
        format!("This ran on a GPU: {device}.")
    }
}

impl Report {
    /// Of what is known so far.
    #[must_use]
    pub fn new(facts: Facts, sections: Vec<Part>, questions: Vec<Question>) -> Self {
        let mut answers: BTreeMap<u32, Vec<(String, String)>> = BTreeMap::new();
        for part in &sections {
            for note in &part.notes {
                if let Note::Answer { question, answer } = note {
                    let of = answers.entry(*question).or_default();
                    of.push((part.name.to_owned(), answer.clone()));
                }
            }
        }
        let asked = |question: Question| Asked {
            answers: answers.remove(&question.number).unwrap_or_default(),
            number: question.number,
            question: question.text,
        };
        let questions = questions.into_iter().map(asked).collect();
        Self { standing: standing(&facts), facts, sections, questions }
    }

    /// Whether somebody has to look at a section.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.sections.iter().any(|part| part.state.is_bad())
    }

    /// Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n# GPU run of {}\n\n", self.standing, self.facts.date);
        text += "Made by `cargo xtask gpu` (docs/gpu/README.md). A number is the median, with the lowest and the highest value and how many; costs are of pairs, off and on, measured one right after the other; \"before\" and \"after\" are each several looks in a row.\n\n## The machine\n\n| | |\n|---|---|\n";
        for (what, value) in self.facts.rows() {
            let value = if value.trim().is_empty() { "not found" } else { &value };
            let _ = writeln!(text, "| {what} | {} |", cell(value));
        }
        text += "\n## The questions of OPEN.md\n\n| # | Question | Answer |\n|---|---|---|\n";
        for asked in &self.questions {
            let _ = writeln!(text, "| {} | {} | {} |", asked.number, asked.question, self.answer(asked));
        }
        text +=
            "\n## The sections\n\n| section | what | outcome | took, s | limit, s |\n|---|---|---|---|---|\n";
        for part in &self.sections {
            let (state, took) = (part.state.name(), part.took_s);
            let _ =
                writeln!(text, "| {} | {} | {state} | {took:.1} | {} |", part.name, part.title, part.limit_s);
        }
        for part in self.sections.iter().filter(|part| part.state != State::NotRun) {
            section(part, &mut text);
        }
        text
    }

    /// What the table shows for a question.
    fn answer(&self, asked: &Asked) -> String {
        let all: Vec<String> =
            asked.answers.iter().map(|(section, answer)| format!("{} ({section})", cell(answer))).collect();
        match (all.is_empty(), self.facts.double) {
            (true, _) => "not answered".to_owned(),
            (false, true) => format!("not answered; the double does: {}", all.join("; ")),
            (false, false) => all.join("; "),
        }
    }

    /// Writes both files, each at once: whoever reads finds a whole one.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let put = |name: &str, bytes: &[u8]| {
            let part = folder.join(format!("{name}.part"));
            std::fs::write(&part, bytes)?;
            std::fs::rename(&part, folder.join(name))
        };
        put("report.md", self.markdown().as_bytes())?;
        put("report.json", &serde_json::to_vec_pretty(self)?)
    }
}

fn section(part: &Part, text: &mut String) {
    let _ = writeln!(text, "\n### {}: {}\n\n{}.\n", part.name, part.title, part.state.name());
    let mut in_table = false;
    for note in &part.notes {
        if matches!(note, Note::Number { .. }) != in_table {
            in_table = !in_table;
            if !text.ends_with("\n\n") {
                text.push('\n');
            }
            text.push_str(if in_table {
                "| what | median | lowest to highest | of | command |\n|---|---|---|---|---|\n"
            } else {
                ""
            });
        }
        let _ = match note {
            Note::Number { what, unit, spread, command } => writeln!(
                text,
                "| {} | {} {unit} | {} to {} | {} | `{}` |",
                cell(what),
                short(spread.median),
                short(spread.low),
                short(spread.high),
                spread.count,
                cell(command).replace('`', "'")
            ),
            Note::Text { text: said } => writeln!(text, "- {said}"),
            Note::Skipped { what, why } if what.is_empty() => writeln!(text, "- skipped: {why}"),
            Note::Skipped { what, why } => writeln!(text, "- {what} skipped: {why}"),
            Note::Failed { what } => writeln!(text, "- **failed**: {what}"),
            Note::Answer { question, answer } => writeln!(text, "- to question {question}: {answer}"),
            Note::File { path, what } => writeln!(text, "- [{path}]({path}): {what}"),
        };
    }
    if !part.said.is_empty() {
        let _ = writeln!(text, "\nIts own last words:\n\n```\n{}\n```", part.said.replace("```", "'''"));
    }
}

/// The end of a section's own output.
#[must_use]
pub fn tail(output: &Path) -> String {
    let bytes = std::fs::read(output).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// Text that may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Four digits or so.
#[must_use]
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, Facts, Note, Part, Question, Report, State, short};
    use crate::gpu::plan::SECTIONS;
    use crate::gpu::stats::Spread;

    fn facts(double: bool) -> Facts {
        let driver = [("device".to_owned(), "NVIDIA X".to_owned())].into();
        Facts { driver, double, date: "2026-01-02T03:04:05Z".into(), ..Facts::default() }
    }

    fn report(facts: Facts) -> Report {
        let mut part = Part::of(&SECTIONS[0]);
        let spread = Spread { median: 1234.5, low: 0.25, high: 2000.0, count: 3 };
        part.state = State::Done;
        part.notes = vec![
            Note::Number { what: "rate".into(), unit: "/s".into(), spread, command: "a | b".into() },
            Note::Answer { question: 2, answer: "yes".into() },
            Note::Skipped { what: "graphs".into(), why: "none".into() },
        ];
        let questions = [1, 2].map(|number| Question { number, text: format!("question {number}") });
        Report::new(facts, vec![part, Part::of(&SECTIONS[1])], questions.into())
    }

    #[test]
    fn the_first_line_says_what_the_figures_are_worth() {
        let first = |report: &Report| report.markdown().lines().next().map(str::to_owned);
        assert_eq!(first(&report(facts(false))).as_deref(), Some("**This ran on a GPU: NVIDIA X.**"));
        let double = report(facts(true));
        assert!(
            first(&double)
                .is_some_and(|line| line.contains("double") && line.contains("no figure here is a GPU's"))
        );
        assert!(
            double.markdown().contains("| question 2 | not answered; the double does: yes (attach-driver) |")
        );
        let none = report(Facts::default());
        assert!(first(&none).is_some_and(|line| line.starts_with("**No GPU: nothing")));
    }

    #[test]
    fn numbers_answers_and_what_was_left_out_are_shown() {
        let text = report(facts(false)).markdown();
        assert!(text.contains("| rate | 1234 /s | 0.250 to 2000 | 3 | `a \\| b` |"), "{text}");
        assert!(text.contains("| 1 | question 1 | not answered |"), "{text}");
        assert!(text.contains("| 2 | question 2 | yes (attach-driver) |"), "{text}");
        assert!(text.contains("- graphs skipped: none"), "{text}");
        assert!(text.contains(
            "| attach-torch | Late attach to a PyTorch loop, without and with CUDA graphs | not run |"
        ));
        assert!(!text.contains("### attach-torch"));
    }

    #[test]
    fn how_a_section_ended_decides_its_state() {
        let skipped = Note::Skipped { what: String::new(), why: "no torch".into() };
        let (text, failed) = (Note::Text { text: "x".into() }, Note::Failed { what: "y".into() });
        assert_eq!(State::of(Ended::Code(0), std::slice::from_ref(&skipped)), State::Skipped);
        assert_eq!(State::of(Ended::Code(0), &[skipped, text.clone()]), State::Done);
        assert_eq!(State::of(Ended::Code(0), &[text.clone(), failed]), State::Failed);
        assert_eq!(State::of(Ended::Code(101), std::slice::from_ref(&text)), State::Crashed);
        assert_eq!(State::of(Ended::Signal(11), &[text]), State::Crashed);
        assert_eq!(State::of(Ended::OverTime { gone: false }, &[]), State::OverTime);
    }

    #[test]
    fn a_report_is_replaced_whole() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        report(facts(false)).write(folder.path())?;
        report(facts(true)).write(folder.path())?;
        let text = std::fs::read_to_string(folder.path().join("report.md"))?;
        assert!(text.starts_with("**This ran on the double"));
        let json = std::fs::read(folder.path().join("report.json"))?;
        let json: serde_json::Value = serde_json::from_slice(&json)?;
        assert_eq!(json["sections"][0]["notes"][0]["median"], 1234.5);
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 2);
        Ok(())
    }

    #[test]
    fn small_numbers_keep_their_digits() {
        let shown = [0.0, 0.0123, 1.5, 123.456, 1e6].map(short);
        assert_eq!(shown, ["0", "0.012", "1.50", "123.5", "1000000"]);
    }
}
