//! What a section has at hand: the programs, a folder, what is known of the machine, and its notebook.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::facts::Facts;
use super::job::Job;
use super::notes::{Note, Notebook};
use super::stats::Spread;

/// The last part of a section's time is for putting things away.
const RESERVE: Duration = Duration::from_secs(4);

/// At hand.
#[derive(Debug)]
pub struct Context {
    /// Folder of the programs.
    pub pack: PathBuf,
    /// Folder of the report.
    pub out: PathBuf,
    /// The machine.
    pub facts: Facts,
    name: String,
    notes: Notebook,
    until: Instant,
}

impl Context {
    /// For the section of this name, which has so much time.
    ///
    /// # Errors
    /// Where its folder or its notebook cannot be made.
    pub fn new(name: &str, pack: &Path, out: &Path, facts: Facts, limit: Duration) -> anyhow::Result<Self> {
        let context = Self {
            pack: pack.to_owned(),
            out: out.to_owned(),
            facts,
            name: name.to_owned(),
            notes: Notebook::create(&notes_path(out, name)).context("cannot make the notebook")?,
            until: Instant::now() + limit.saturating_sub(RESERVE),
        };
        std::fs::create_dir_all(context.work()).context("cannot make the section's folder")?;
        std::fs::create_dir_all(out.join("captures"))?;
        Ok(context)
    }

    /// A folder for what is thrown away.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.out.join("work").join(&self.name)
    }

    /// Time that is left for measuring.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whether so much time is left.
    #[must_use]
    pub fn has(&self, seconds: f64) -> bool {
        self.left().as_secs_f64() > seconds
    }

    fn note(&mut self, note: &Note) -> anyhow::Result<()> {
        self.notes.add(note).context("cannot write the notebook")
    }

    /// Notes a number, the median of these; of none it says so.
    ///
    /// # Errors
    /// Where the notebook cannot be written, here and below.
    pub fn number(&mut self, what: &str, unit: &str, values: &[f64], command: &str) -> anyhow::Result<()> {
        let Some(spread) = Spread::of(values) else {
            return self.say(&format!("{what}: nothing was measured ({command})"));
        };
        let (what, unit, command) = (what.to_owned(), unit.to_owned(), command.to_owned());
        self.note(&Note::Number { what, unit, spread, command })
    }

    /// Notes a sentence.
    ///
    /// # Errors
    /// As above.
    pub fn say(&mut self, text: &str) -> anyhow::Result<()> {
        self.note(&Note::Text { text: text.to_owned() })
    }

    /// Notes that a part (or, with an empty name, all) of the section cannot be tried.
    ///
    /// # Errors
    /// As above.
    pub fn skip(&mut self, what: &str, why: &str) -> anyhow::Result<()> {
        self.note(&Note::Skipped { what: what.to_owned(), why: why.to_owned() })
    }

    /// Notes that a part went wrong; the section goes on.
    ///
    /// # Errors
    /// As above.
    pub fn fail(&mut self, what: &str) -> anyhow::Result<()> {
        self.note(&Note::Failed { what: what.to_owned() })
    }

    /// Notes the error of a part, if it is one.
    ///
    /// # Errors
    /// As above.
    pub fn part(&mut self, what: &str, done: anyhow::Result<()>) -> anyhow::Result<()> {
        match done {
            Ok(()) => Ok(()),
            Err(error) => self.fail(&format!("{what}: {error:#}")),
        }
    }

    /// Notes an answer to a question of docs/gpu/OPEN.md.
    ///
    /// # Errors
    /// As above.
    pub fn answer(&mut self, question: u32, answer: &str) -> anyhow::Result<()> {
        self.note(&Note::Answer { question, answer: answer.to_owned() })
    }

    /// Notes a file below the folder of the report.
    ///
    /// # Errors
    /// As above.
    pub fn file(&mut self, path: &str, what: &str) -> anyhow::Result<()> {
        self.note(&Note::File { path: path.to_owned(), what: what.to_owned() })
    }

    /// A loop on the driver's API, running. It loads a CUDA runtime that it does not use, because that is where the agent
    /// looks for a CUPTI in a process that has none.
    ///
    /// # Errors
    /// Where it does not begin.
    pub fn work_job(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Job> {
        let mut command = Command::new(self.pack.join("jobs/gpu_work"));
        command.args(arguments);
        if let Some(runtime) = self.facts.cudart.as_ref().or(self.facts.cuptis.first()) {
            command.arg(format!("load={}", runtime.display()));
        }
        let page = self.work().join(format!("{name}.page"));
        command.arg(format!("page={}", page.display()));
        Job::start(command, name, &self.work(), page)
    }

    /// A Python program of the jobs.
    #[must_use]
    pub fn python(&self, script: &str) -> Command {
        let mut command = Command::new(&self.facts.python);
        command.arg(self.pack.join("jobs").join(script));
        command
    }

    /// The same, for scripts that load CUDA's libraries by name: they find those of Python's packages.
    #[must_use]
    pub fn python_with_libraries(&self, script: &str) -> Command {
        let mut command = self.python(script);
        let mut folders: Vec<PathBuf> = std::env::var_os("LD_LIBRARY_PATH")
            .map(|paths| std::env::split_paths(&paths).collect())
            .unwrap_or_default();
        folders.extend(self.facts.python_libraries());
        if let Ok(joined) = std::env::join_paths(folders) {
            command.env("LD_LIBRARY_PATH", joined);
        }
        command
    }

    /// A PyTorch loop, running.
    ///
    /// # Errors
    /// Where it does not begin in time.
    pub fn torch_job(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Job> {
        let page = self.work().join(format!("{name}.page"));
        let mut command = self.python("gpu_torch.py");
        command.arg("--page").arg(&page).args(arguments);
        Job::start(command, name, &self.work(), page)
    }
}

/// Where a section writes its notes.
#[must_use]
pub fn notes_path(out: &Path, section: &str) -> PathBuf {
    out.join("notes").join(format!("{section}.jsonl"))
}
