fn main() -> anyhow::Result<()> {
    let d = planus_translation::translate_files(&["schemas/capture.fbs"]).expect("schema");
    let code = planus_codegen::generate_rust(&d, true).map_err(|e| anyhow::anyhow!("{e}"))?;
    std::fs::write("schemas/src/capture_generated.rs", code)?;
    Ok(())
}
