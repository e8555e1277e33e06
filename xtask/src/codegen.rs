//! The Rust mirror of the capture schema: generated, committed, and checked to be what the schema says.

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
