//! What the export says of the session as a whole: when it began, on which host, as which rank, and what it lost.

use std::io::Write;

use stallscope_core::capture::Clock;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::units::SourceId;

use super::actors::ProcessKey;
use super::database::{integer, text};
use super::{MAX_TIME_NS, Reader};
use crate::ImportError;

/// How far the session's start in Unix time may be off: it is one reading of two clocks, taken by a user-space process.
/// Against other hosts, the difference of their clocks comes on top.
const START_ERROR_NS: u64 = 1_000_000;

/// No session is as long as this (September 2001 as Unix time), so such times are Unix times.
const UNIX_TIMES_FROM_NS: i64 = 1_000_000_000_000_000_000;

/// Variables that launchers set, best first: rank, number of ranks.
const RANK_VARIABLES: &[(&str, &str)] = &[
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
];

/// Variables that name the job.
const JOB_VARIABLES: &[&str] = &["SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"];

/// Parts of messages that mean missing GPU records; "No CUDA events collected" means that there were none.
const LOST: &[&str] = &[
    "not all cuda events",
    "not all events",
    "were dropped",
    "was dropped",
    "have been dropped",
    "were lost",
    "was lost",
];

impl<W: Write> Reader<'_, '_, W> {
    /// Says how the table's times relate to Unix time.
    ///
    /// Times count from the start of the session, which `TARGET_INFO_SESSION_START_TIME.utcEpochNs` places in Unix time.
    /// (`systemClockNs` is that moment on the host's monotonic clock; no table uses it.) An export made with
    /// `--ts-normalize=true` has Unix times already. A `--ts-shift` is the user's own correction and stays.
    pub(super) fn read_clock(&mut self, source: SourceId) -> Result<(), ImportError> {
        if self.is_normalised()? {
            let note = "Unix time, as exported".to_owned();
            self.ingest.writer().set_clock(Clock { source, offset_ns: 0, error_ns: START_ERROR_NS, note });
            return Ok(());
        }
        let mut start = None;
        if let Some(table) = self.database.table("TARGET_INFO_SESSION_START_TIME") {
            self.database.scan(table, &["utcEpochNs"], |row| {
                start = start.or(integer(row, 0).ok().flatten());
                Ok(())
            })?;
        }
        if let Some(offset_ns) = start.filter(|&s| 0 < s && s < MAX_TIME_NS) {
            let note = "start of the Nsight Systems session in Unix time".to_owned();
            self.ingest.writer().set_clock(Clock { source, offset_ns, error_ns: START_ERROR_NS, note });
        }
        Ok(())
    }

    fn is_normalised(&self) -> Result<bool, ImportError> {
        let mut normalised = false;
        if let Some(table) = self.database.table("META_DATA_EXPORT") {
            self.database.scan(table, &["name", "value"], |row| {
                if let (Ok(Some(name)), Ok(Some(value))) = (text(row, 0), text(row, 1)) {
                    normalised |= name == "EXPORT_PARAM_TIME_NORMALIZE" && value.eq_ignore_ascii_case("true");
                }
                Ok(())
            })?;
        }
        let first = super::activity::device_tables().find_map(|name| {
            let table = self.database.table(name)?.select(&["start"], None);
            self.database
                .connection()
                .query_row(&format!("{table} LIMIT 1"), [], |row| row.get::<_, i64>(0))
                .ok()
        });
        Ok(normalised || first.is_some_and(|t| t > UNIX_TIMES_FROM_NS))
    }

    /// Reads host, rank and job from the environment that the profiler recorded.
    ///
    /// The environment is that of the profiler, so it speaks for the ranks only where one process used GPUs: a profiler
    /// a rank. A profiler around a launcher has several, whose ranks the export does not say.
    pub(super) fn read_environment(&mut self) -> Result<(), ImportError> {
        let Some(table) = self.database.table("TARGET_INFO_SYSTEM_ENV") else { return Ok(()) };
        let mut host = String::new();
        let mut environment = String::new();
        self.database.scan(table, &["name", "value"], |row| {
            if let (Ok(Some(name)), Ok(Some(value))) = (text(row, 0), text(row, 1)) {
                match &*name {
                    "Hostname" if host.is_empty() => host = value.into_owned(),
                    "DeviceEnvironment" if environment.is_empty() => environment = value.into_owned(),
                    _ => {}
                }
            }
            Ok(())
        })?;
        let job = JOB_VARIABLES.iter().find_map(|name| variable(&environment, name)).unwrap_or_default();
        self.ingest.writer().set_host(&host);
        self.actors.update_processes(self.ingest, |p| {
            p.host.clone_from(&host);
            job.clone_into(&mut p.job);
        });
        if let Some(process) = self.actors.only_gpu_process()
            && let Some((rank, size)) = rank_of(&environment)
        {
            self.ingest.writer().update_process(process, |p| (p.rank, p.world_size) = (Some(rank), size));
        }
        Ok(())
    }

    /// Counts messages in which the profiler says that it lost records of a process seen here.
    pub(super) fn read_diagnostics(&mut self) -> Result<(), ImportError> {
        let database = self.database;
        let Some(table) = database.table("DIAGNOSTIC_EVENT") else { return Ok(()) };
        database.scan(table, &["text", "globalPid"], |row| {
            let Ok(Some(message)) = text(row, 0) else { return Ok(()) };
            let process = integer(row, 1).ok().flatten().map(ProcessKey::of);
            let lower = message.to_ascii_lowercase();
            // Helpers that never touched a GPU are told the same, and lost nothing.
            if process.is_none_or(|p| self.actors.has_process(p))
                && LOST.iter().any(|part| lower.contains(part))
            {
                self.count(LossCounter::LossWindowReported);
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// The value of a variable in a list `A=1;B=2`.
fn variable<'e>(environment: &'e str, name: &str) -> Option<&'e str> {
    environment
        .split(';')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .filter(|v| !v.is_empty())
}

fn rank_of(environment: &str) -> Option<(u32, Option<u32>)> {
    RANK_VARIABLES.iter().find_map(|(rank, size)| {
        let rank: u32 = variable(environment, rank)?.parse().ok()?;
        let size = variable(environment, size).and_then(|s| s.parse().ok()).filter(|&size| rank < size);
        Some((rank, size))
    })
}

#[cfg(test)]
mod tests {
    use super::{rank_of, variable};

    #[test]
    fn a_rank_is_read_from_whichever_launcher_set_it() {
        assert_eq!(rank_of("A=1;RANK=3;WORLD_SIZE=8;SLURM_PROCID=0"), Some((3, Some(8))));
        assert_eq!(rank_of("SLURM_PROCID=5;SLURM_NTASKS=4"), Some((5, None)));
        assert_eq!(rank_of("LOCAL_RANK=5;XRANK=2"), None);
        assert_eq!(rank_of("RANK=x"), None);
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        assert_eq!(variable("A=;B=2", "A"), None);
        assert_eq!(variable("A=;B=2", "B"), Some("2"));
    }
}
