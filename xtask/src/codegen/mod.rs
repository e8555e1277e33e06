//! Rust mirrors of the capture schema and of the ring records: generated, committed, and checked.
//!
//! The generator for the capture schema is a minute of building that no other task needs, so it is behind a feature: without it, this task runs
//! itself again with it.

mod wire;

/// Writes the mirrors.
pub(crate) fn write() -> anyhow::Result<()> {
    wire::write()?;
    generator::write()
}

/// Fails where a committed mirror is not what its definition says.
pub(crate) fn check() -> anyhow::Result<()> {
    wire::check()?;
    generator::check()
}

#[cfg(not(feature = "codegen"))]
mod generator {
    use crate::shell::{cargo, run};

    fn run_again(arguments: &[&str]) -> anyhow::Result<()> {
        let itself = ["run", "--quiet", "--package", "xtask", "--features", "codegen", "--", "codegen"];
        run(cargo().args(itself).args(arguments))
    }

    /// Writes the mirror.
    pub(crate) fn write() -> anyhow::Result<()> {
        run_again(&[])
    }

    /// Fails where the committed mirror is not what the schema says.
    pub(crate) fn check() -> anyhow::Result<()> {
        run_again(&["--check"])
    }
}

#[cfg(feature = "codegen")]
mod generator {
    use anyhow::{Context, bail};

    use crate::shell::root;

    const SCHEMA: &str = "schemas/capture.fbs";
    const MIRROR: &str = "schemas/src/capture_generated.rs";

    fn generate() -> anyhow::Result<String> {
        // The path as given stands in the generated comments, so it has to be the relative one.
        std::env::set_current_dir(root())?;
        let declarations = planus_translation::translate_files(&[SCHEMA])
            .with_context(|| format!("{SCHEMA} is not valid; the errors are above"))?;
        planus_codegen::generate_rust(&declarations, true)
            .map_err(|e| anyhow::anyhow!("cannot generate {MIRROR}: {e}"))
    }

    /// Writes the mirror.
    pub(crate) fn write() -> anyhow::Result<()> {
        let code = generate()?;
        std::fs::write(root().join(MIRROR), code).with_context(|| format!("cannot write {MIRROR}"))
    }

    /// Fails where the committed mirror is not what the schema says.
    pub(crate) fn check() -> anyhow::Result<()> {
        let committed =
            std::fs::read_to_string(root().join(MIRROR)).with_context(|| format!("cannot read {MIRROR}"))?;
        let generated = generate()?;
        if committed == generated {
            return Ok(());
        }
        let same = committed.lines().zip(generated.lines()).take_while(|(a, b)| a == b).count();
        bail!("{MIRROR} is not what {SCHEMA} says, from line {} on; run cargo xtask codegen", same + 1)
    }
}
