//! Ports of InfiniBand and RoCE adapters: state, rate, and by how much their counters have grown.
//!
//! The kernel keeps `counters/` (those that the InfiniBand standard defines) and `hw_counters/` (the adapter's own) for
//! each port. Reading one asks the adapter, which takes it up to some tens of µs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files;
use crate::names;
use crate::sample::{Gather, Of};

/// The folder of adapters, below that of sysfs.
const CLASS: &str = "class/infiniband";

/// Ports that are looked at.
const PORTS: usize = 256;

/// The standard counts data in words of four octets.
const WORD_BYTES: u64 = 4;

/// How long the adapter may answer with what it read before, ms: a setting, not a counter.
const LIFESPAN: &str = "lifespan";

/// Adds the counters of all ports.
pub(crate) fn sample(sysfs: &Path, gather: &mut Gather<'_>) -> io::Result<()> {
    for (port, folder) in ports(sysfs)?.into_iter().take(PORTS) {
        let of = Of::Port(port);
        if let Some(state) = files::read(&folder.join("state")).ok().as_deref().and_then(state) {
            gather.value(&of, names::PORT_STATE, state);
        }
        if let Some(rate) = files::read(&folder.join("rate")).ok().as_deref().and_then(rate) {
            gather.value(&of, names::PORT_RATE, rate);
        }
        counters(&of, &folder.join("counters"), "", gather);
        counters(&of, &folder.join("hw_counters"), "hw ", gather);
    }
    Ok(())
}

fn ports(sysfs: &Path) -> io::Result<Vec<(Arc<str>, PathBuf)>> {
    let class = sysfs.join(CLASS);
    let mut ports = Vec::new();
    for adapter in files::names(&class)? {
        let folder = class.join(&adapter).join("ports");
        // An adapter may go while we look.
        for port in files::names(&folder).unwrap_or_default() {
            ports.push((format!("{adapter}/{port}").into(), folder.join(port)));
        }
    }
    Ok(ports)
}

fn counters(of: &Of, folder: &Path, prefix: &str, gather: &mut Gather<'_>) {
    for file in files::names(folder).unwrap_or_default() {
        if file == LIFESPAN {
            continue;
        }
        // A counter that the adapter does not have reads as an error or as text.
        if let Some(total) = files::number(&folder.join(&file)) {
            let (unit, scale) = unit(&file);
            gather.growth(of, format!("{prefix}{file} ({unit})"), total, scale);
        }
    }
}

/// The unit of a counter, and how many of it one count is.
fn unit(file: &str) -> (&'static str, u64) {
    match file {
        "port_xmit_data" | "port_rcv_data" => ("bytes", WORD_BYTES),
        "port_xmit_wait" => ("ticks", 1),
        _ if file.ends_with("_bytes") => ("bytes", 1),
        _ => ("count", 1),
    }
}

/// `4: ACTIVE`.
fn state(text: &str) -> Option<u64> {
    text.split_once(':')?.0.trim().parse().ok()
}

/// `100 Gb/sec (4X EDR)` or `2.5 Gb/sec`, in Mb/s.
fn rate(text: &str) -> Option<u64> {
    let (number, rest) = text.trim().split_once(' ')?;
    if !rest.starts_with("Gb/sec") {
        return None;
    }
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let tenths = Some(tenths).filter(|t| t.len() == 1)?.parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(tenths * 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_all_generations_and_states_are_read() {
        assert_eq!(rate("100 Gb/sec (4X EDR)\n"), Some(100_000));
        assert_eq!(rate("2.5 Gb/sec (1X SDR)"), Some(2_500));
        assert_eq!(rate("40 Gb/sec"), Some(40_000));
        for text in [
            "",
            "100",
            "100 Mb/sec",
            "1.55 Gb/sec",
            "99999999999999999999 Gb/sec",
            "18446744073709551615 Gb/sec",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
        assert_eq!((state("4: ACTIVE\n"), state("ACTIVE")), (Some(4), None));
    }
}
