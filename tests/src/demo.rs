//! The trace that the repository ships: two ranks of a small job, rank 1 of which now and then waits for its data.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::kineto_json;
use crate::oracle::{Truth, truth};

/// The job of the demonstration.
#[must_use]
pub fn job() -> Job {
    Job {
        seed: 20_251_006,
        ranks: 2,
        first_step: 5,
        steps: 12,
        layers: 6,
        load_ns: 260_000,
        slow_rank: 1,
        slow_steps: vec![2, 6, 7, 10],
        slow_load_ns: 9_500_000,
    }
}

/// The known answers of all ranks.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// What the file is.
    pub comment: String,
    /// One ledger a rank.
    pub ranks: Vec<Truth>,
}

/// The folder of the fixture.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo")
}

/// Path of the trace of a rank.
#[must_use]
pub fn trace_path(rank: u32) -> PathBuf {
    folder().join(format!("rank{rank}.json.gz"))
}

/// Path of the known answers.
#[must_use]
pub fn answers_path() -> PathBuf {
    folder().join("truth.json")
}

/// The traces of all ranks, as text.
///
/// # Errors
/// None in practice: the output is memory.
pub fn traces() -> io::Result<Vec<Vec<u8>>> {
    let job = job();
    let text = |host: &crate::host::Host| {
        let mut out = Vec::new();
        kineto_json::write(host, job.ranks, &mut out).map(|()| out)
    };
    job.run().iter().map(text).collect()
}

/// The known answers, computed.
#[must_use]
pub fn answers() -> Answers {
    let comment = "True ledgers of the traces beside this file, from the model that made them: cargo run -p \
                   stallscope-tests --bin generate -- demo";
    Answers { comment: comment.to_owned(), ranks: job().run().iter().map(truth).collect() }
}

/// Writes the fixture into a folder.
///
/// # Errors
/// Whatever the file system reports.
pub fn write_fixture(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (rank, text) in traces()?.iter().enumerate() {
        let file = std::fs::File::create(folder.join(format!("rank{rank}.json.gz")))?;
        let mut gz = GzBuilder::new().mtime(0).write(file, Compression::best());
        gz.write_all(text)?;
        gz.finish()?;
    }
    let mut answers = serde_json::to_string_pretty(&answers())?;
    answers.push('\n');
    std::fs::write(folder.join("truth.json"), answers)?;
    Ok(())
}

/// The whole of a gzip file.
///
/// # Errors
/// Whatever the file system or the decoder reports.
pub fn read_gz(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    GzDecoder::new(std::fs::File::open(path)?).read_to_end(&mut text)?;
    Ok(text)
}
