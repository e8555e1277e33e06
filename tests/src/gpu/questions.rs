//! The questions of docs/gpu/OPEN.md.

/// The page itself, so that a report has its very words wherever it is written.
pub const PAGE: &str = include_str!("../../../docs/gpu/OPEN.md");

/// A question that only a GPU can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its number.
    pub number: u32,
    /// Its text, Markdown.
    pub text: String,
}

/// The questions of a page: the rows of its table that begin with a number.
#[must_use]
pub fn parse(page: &str) -> Vec<Question> {
    let row = |line: &str| {
        let mut cells = line.trim().strip_prefix('|')?.split('|').map(str::trim);
        let number = cells.next()?.parse().ok()?;
        Some(Question { number, text: cells.next()?.to_owned() })
    };
    page.lines().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::{PAGE, Question, parse};
    use crate::gpu::plan::SECTIONS;

    #[test]
    fn rows_that_begin_with_a_number_are_questions() {
        let page = "text | 1 |\n| # | Question | bad |\n|---|---|---|\n| 7 | Does `x` run? | no |\n";
        assert_eq!(parse(page), [Question { number: 7, text: "Does `x` run?".into() }]);
    }

    #[test]
    fn every_question_of_the_page_is_asked_by_a_section_and_no_other() {
        let asked: Vec<u32> = parse(PAGE).iter().map(|q| q.number).collect();
        assert!(asked.len() >= 12 && asked.is_sorted(), "{asked:?}");
        let mut answered: Vec<u32> = SECTIONS.iter().flat_map(|s| s.questions).copied().collect();
        answered.sort_unstable();
        answered.dedup();
        assert_eq!(asked, answered);
    }
}
