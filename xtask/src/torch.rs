//! `cargo xtask test --torch`: PyTorch over two network namespaces, recorded. It needs root and 152 MB of packages, which
//! is why no other run of the tests asks for it.

use crate::shell::{cargo, run, target_dir};

/// Builds the program and runs the suite, with what it prints on the terminal.
pub(crate) fn test() -> anyhow::Result<()> {
    run(cargo().args(["build", "--quiet", "--package", "stallscope"]))?;
    let mut suite = cargo();
    suite.args(["test", "--package", "stallscope-tests", "--test", "live_torch", "--", "--nocapture"]);
    // Without this the suite leaves itself out.
    suite.env("STALLSCOPE_TORCH", "1");
    run(suite.env("STALLSCOPE", target_dir().join("debug/stallscope")))
}
