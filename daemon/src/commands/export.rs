//! `stallscope export`.

use crate::args::ExportArgs;
use crate::failure::{Failure, Outcome};

pub(crate) fn run(_args: &ExportArgs) -> Result<Outcome, Failure> {
    Ok(Outcome::Done)
}
