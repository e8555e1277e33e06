//! A part of the fault matrix: culprit and cause are named, and nobody else. Without root it says so and passes.

use stallscope_tests::faults::{Options, run};
use stallscope_tests::live::lab::obstacle;

#[test]
fn the_late_rank_and_its_cause_are_named_first_and_ledgers_close() -> anyhow::Result<()> {
    if let Some(why) = obstacle() {
        println!("skipped: {why}");
        return Ok(());
    }
    let only = ["late rank", "more work", "chain of four ranks"].map(str::to_owned).to_vec();
    let matrix = run(&Options { quick: true, only, ..Options::default() }, |_| {})?;
    assert_eq!(matrix.rows.len(), 3);
    for row in &matrix.rows {
        assert_eq!(row.top1, Some(true), "{row:#?}");
        assert_eq!((row.conservation_residual_ns, row.false_findings), (0, 0), "{row:#?}");
        assert!(row.charged_ns * 2 > row.waited_ns, "most of the waiting is charged to the fault: {row:#?}");
        assert!(
            row.covered_splits * 10 > row.splits * 9 && row.splits > 0,
            "waits end when they did: {row:#?}"
        );
    }
    Ok(())
}
