//! A progress bar on standard error for work that takes seconds; silent where nobody is watching.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over bytes, or nothing when standard error is not a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(what: &str) -> Self {
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self { bar }
    }

    pub(crate) fn update(&mut self, done: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line that changes, for work of unknown length, or nothing when standard error is not a terminal.
pub(crate) struct Ticker {
    bar: ProgressBar,
    what: &'static str,
}

impl Ticker {
    pub(crate) fn new(what: &'static str) -> Self {
        let bar =
            if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        Self { bar, what }
    }

    pub(crate) fn update(&mut self, text: &str) {
        self.bar.set_message(format!("{} {text}", self.what));
        self.bar.tick();
    }

    pub(crate) fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}
