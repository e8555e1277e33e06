//! What eBPF sees on this kernel, as `stallscope doctor` says it.

use anyhow::Context as _;

use crate::gpu::context::Context;

/// # Errors
/// Where the doctor did not answer.
pub fn run(context: &mut Context) -> anyhow::Result<()> {
    let doctor = context.facts.doctor.clone();
    let checks = doctor["checks"].as_array().context("stallscope doctor said nothing")?;
    std::fs::write(context.out.join("doctor.json"), serde_json::to_vec_pretty(&doctor)?)?;
    context.file("doctor.json", "stallscope doctor --json")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    context.say(&format!("{}: {}", text(&doctor["recording"]), text(&doctor["summary"])))?;
    for check in checks {
        let (id, status, finding) = (text(&check["id"]), text(&check["status"]), text(&check["finding"]));
        context.say(&format!("{id}: {status}: {finding}"))?;
    }
    Ok(())
}
