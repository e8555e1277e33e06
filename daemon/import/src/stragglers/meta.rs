//! The description that lies beside a trace: `meta-NAME.yaml` beside `trace-NAME.parquet`, or `NAME.yaml` beside `NAME.parquet`.
//!
//! Of YAML it uses `key: value` and nothing else. Without the file, sizes are what the trace shows, and what only the file
//! could say stays unknown.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::ImportError;

/// Eight lines; more is something else.
const MAX_BYTES: u64 = 64 << 10;

/// What the description says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) name: Option<String>,
    pub(super) dp: Option<u64>,
    pub(super) dsp: Option<u64>,
    pub(super) pp: Option<u64>,
    pub(super) tp: Option<u64>,
    pub(super) vpp: Option<u64>,
    pub(super) world: Option<u64>,
}

/// Where the description of a trace is looked for, the likeliest first.
pub(super) fn candidates(trace: &Path) -> Vec<PathBuf> {
    let stem = trace.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let mut names = Vec::new();
    if let Some(name) = stem.strip_prefix("trace-") {
        names.push(format!("meta-{name}"));
    }
    names.extend([format!("meta-{stem}"), stem]);
    let with = |name: &String, ending: &str| trace.with_file_name(format!("{name}.{ending}"));
    names.iter().flat_map(|name| [with(name, "yaml"), with(name, "yml")]).collect()
}

/// Reads the description of a trace. `None` where there is none.
pub(super) fn beside(trace: &Path) -> Result<Option<(PathBuf, Meta)>, ImportError> {
    let Some(path) = candidates(trace).into_iter().find(|path| path.is_file()) else { return Ok(None) };
    let file = File::open(&path).map_err(|e| ImportError::open(&path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| ImportError::open(&path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        let reason = "it is too long to describe a job";
        return Err(malformed(&path, reason));
    }
    match parse(&String::from_utf8_lossy(&bytes)) {
        Ok(meta) => Ok(Some((path, meta))),
        Err(reason) => Err(malformed(&path, &reason)),
    }
}

fn malformed(path: &Path, reason: &str) -> ImportError {
    let reason = format!("{reason}; correct it, or move it away to have the sizes taken from the trace");
    ImportError::Malformed { path: path.to_owned(), reason }
}

fn parse(text: &str) -> Result<Meta, String> {
    let mut meta = Meta::default();
    for line in text.lines() {
        // A comment begins the line or follows a blank.
        let line =
            if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or("") };
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim().trim_matches(['"', '\'']);
        let slot = match key.trim() {
            "trial_name" => {
                meta.name = Some(value.to_owned()).filter(|v| !v.is_empty());
                continue;
            }
            "dp_size" => &mut meta.dp,
            "dsp_size" => &mut meta.dsp,
            "pp_size" => &mut meta.pp,
            "tp_size" => &mut meta.tp,
            "vpp_size" => &mut meta.vpp,
            "world_size" => &mut meta.world,
            _ => continue,
        };
        let size = value.parse().ok().filter(|&size: &u64| size > 0);
        let key = key.trim();
        *slot =
            Some(size.ok_or_else(|| format!("its {key} is `{value}` and has to be a whole number above 0"))?);
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{candidates, parse};

    #[test]
    fn sizes_are_read_and_what_is_no_size_is_refused() {
        let meta =
            parse("trial_name: 'AR' # a job\nrun_id: 0\ndp_size: 4\n#tp_size: x\npp_size:   2\n").unwrap();
        assert_eq!((meta.name.as_deref(), meta.dp, meta.pp, meta.tp), (Some("AR"), Some(4), Some(2), None));
        for bad in ["dp_size: 0", "dp_size: -1", "dp_size: four", "dp_size:"] {
            assert!(parse(bad).unwrap_err().contains("dp_size"), "{bad}");
        }
    }

    #[test]
    fn the_description_has_the_name_of_the_trace() {
        let names = |path: &str| {
            candidates(Path::new(path)).iter().map(|p| p.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("a/trace-AR.parquet")[..2], ["a/meta-AR.yaml", "a/meta-AR.yml"]);
        assert!(names("a/job.parquet").contains(&"a/job.yaml".to_owned()));
    }
}
