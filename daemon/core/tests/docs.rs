//! Documentation that shows data shows the data that the program uses.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use stallscope_core::findings::rules::RULES;

#[test]
fn the_rule_table_of_the_docs_is_the_programs() {
    let page = include_str!("../../../docs/findings.md");
    let percent = |share: f64| {
        if share > 1.0 { "never".to_owned() } else { format!("{} %", (share * 1000.0).round() / 10.0) }
    };
    for rule in RULES {
        let [notice, warning, critical] = rule.thresholds.map(percent);
        let row = format!(
            "| `{}` | {} | {notice} | {warning} | {critical} | {} |",
            rule.id, rule.category, rule.advice
        );
        assert!(page.lines().any(|line| line == row), "docs/findings.md lacks: {row}");
    }
    let rows = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, RULES.len(), "docs/findings.md has rows that are no rules");
}
