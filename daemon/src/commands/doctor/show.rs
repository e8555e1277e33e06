//! Checks as text for people and as JSON for programs (docs/doctor.md).

use std::fmt::Write as _;

use serde_json::{Value, json};
use stallscope_core::report::text::printable;
use stallscope_ebpf::Standing;

use super::{Check, Diagnosis, Group};

/// Columns of the widest line.
const WIDTH: usize = 110;
/// Columns before what is said about a check: its standing and its name.
const INDENT: usize = 36;

pub(super) fn text(diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    // Remedies that were told, with the first check that they were told for.
    let mut told: Vec<(&str, &str)> = Vec::new();
    for group in Group::ALL {
        let title = match group {
            Group::Place => "where this runs",
            Group::Gpu => "gpu (recorded by an agent in processes that use CUDA)",
            other => other.name(),
        };
        let _ = writeln!(out, "{title}");
        let mut checks = diagnosis.checks.iter().filter(|check| check.group == group).peekable();
        while let Some(check) = checks.next() {
            let mut names = vec![check.name.as_str()];
            if group == Group::Probes {
                // What all of them lack is said once.
                while let Some(same) = checks.next_if(|next| !next.works() && next.standing == check.standing)
                {
                    names.push(&same.name);
                }
            }
            write_check(&mut out, check, &names, &mut told);
        }
        out.push('\n');
    }
    write_wrapped(&mut out, "", 0, &diagnosis.summary());
    out
}

fn write_check<'a>(out: &mut String, check: &'a Check, names: &[&str], told: &mut Vec<(&'a str, &'a str)>) {
    let head = |name: &str| format!("  {:<8}  {name:<24}", status(&check.standing));
    let what = if names.len() == 1 { check.finding.clone() } else { names.join(", ") };
    let name = if names.len() == 1 { check.name.as_str() } else { "several" };
    write_wrapped(out, &head(name), INDENT, &what);
    let (word, why, remedy) = match &check.standing {
        Standing::Works => return,
        Standing::Degraded { lost, remedy } => ("not seen: ", lost, remedy),
        Standing::Missing { reason, remedy } => ("", reason, remedy),
    };
    let indent = " ".repeat(INDENT);
    if *why != what {
        write_wrapped(out, &indent, INDENT, &format!("{word}{why}"));
    }
    let remedy = match told.iter().find(|(earlier, _)| earlier == remedy) {
        Some((_, name)) => format!("remedy: as for {name}"),
        None => {
            told.push((remedy, &check.name));
            format!("remedy: {remedy}")
        }
    };
    write_wrapped(out, &indent, INDENT, &remedy);
}

/// Writes words after a head, in lines of at most [`WIDTH`] columns; lines that go on begin at a column.
fn write_wrapped(out: &mut String, head: &str, indent: usize, text: &str) {
    let mut line = head.to_owned();
    let mut column = head.chars().count();
    let mut fresh = true;
    let text = printable(text);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let width = word.chars().count();
        if !fresh && column + 1 + width > WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(indent);
            column = indent;
            fresh = true;
        }
        if !fresh {
            line.push(' ');
            column += 1;
        }
        line.push_str(word);
        column += width;
        fresh = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

fn status(standing: &Standing) -> &'static str {
    match standing {
        Standing::Works => "works",
        Standing::Degraded { .. } => "degraded",
        Standing::Missing { .. } => "missing",
    }
}

pub(super) fn json(diagnosis: &Diagnosis) -> String {
    let checks: Vec<Value> = diagnosis.checks.iter().map(json_check).collect();
    let root = json!({
        "schema_version": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "recording": diagnosis.recording(),
        "tried": diagnosis.tried,
        "summary": diagnosis.summary(),
        "checks": checks,
    });
    format!("{root:#}\n")
}

fn json_check(check: &Check) -> Value {
    let mut value = json!({
        "id": check.id,
        "group": check.group.name(),
        "name": check.name,
        "status": status(&check.standing),
        "finding": check.finding,
        "needed": check.needed,
    });
    match &check.standing {
        Standing::Works => {}
        Standing::Degraded { lost, remedy } => {
            value["lost"] = json!(lost);
            value["remedy"] = json!(remedy);
        }
        Standing::Missing { reason, remedy } => {
            value["reason"] = json!(reason);
            value["remedy"] = json!(remedy);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::{WIDTH, write_wrapped};

    #[test]
    fn lines_are_broken_between_words_and_go_on_at_their_column() {
        let mut out = String::new();
        write_wrapped(&mut out, "head  ", 6, &"word ".repeat(60));
        assert!(out.lines().all(|line| line.chars().count() <= WIDTH), "{out}");
        assert!(out.lines().skip(1).all(|line| line.starts_with("      word")), "{out}");
        assert_eq!(out.matches("word").count(), 60);
        let mut long = String::new();
        write_wrapped(&mut long, "  ", 2, &"x".repeat(200));
        assert_eq!(long.lines().count(), 1, "a word is never cut");
    }
}
