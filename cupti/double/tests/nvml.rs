//! NVML says what the settings say, and changes when they do.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use common::Lab;
use stallscope_cupti_double::folder::Version;

const BEFORE: &str = "gpus=2
gpu.1.mig=2
nvml.0.temperature_c=61
nvml.0.utilization_gpu=97
nvml.0.nvlink_tx_kib=500
nvml.0.nvlink3_rx_kib=7
nvml.0.power_mw=unsupported
nvml.1.mig0.processes=100:5
nvml.1.mig1.processes=200:7, 201:1
";

const AFTER: &str = "nvml.0.temperature_c=88
nvml.0.clock_sm_mhz=1200
nvml.0.throttle_reasons=64
nvml.0.pcie_width=4
nvml.0.pcie_tx_kbps=123
nvml.0.ecc_uncorrected=2
nvml.0.xid=79
";

#[test]
fn values_are_the_settings() {
    let lab = Lab::new(Version::V12_8);
    let program = lab.compile(&common::here().join("tests/c/nvml.c"));
    let file = lab.path("settings");
    std::fs::write(&file, BEFORE).unwrap();
    let mut command = lab.command(&program, "", "log");
    command.env("STALLSCOPE_DOUBLE_FILE", &file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut before = String::new();
    while !before.ends_with("ready\n") {
        assert_ne!(output.read_line(&mut before).unwrap(), 0, "{before}");
    }
    std::fs::write(&file, format!("{BEFORE}{AFTER}")).unwrap();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut after = String::new();
    output.read_to_string(&mut after).unwrap();
    assert!(child.wait().unwrap().success());
    let expected = "count 2
uuid GPU-d0b1e500-0000-4000-8000-000000000000
temperature 0 61
power 3 0
clock 0 1980
reasons 0 0
rates 0 97
width 0 16
pcie 0 0
ecc 0 0
nvlink 500 7
mig 1
instance MIG-d0b1e500-0000-4000-8000-010000000001
instance MIG-d0b1e500-0000-4000-8000-010100000001
size 7 3
process 100 5242880 0
process 200 7340032 1
process 201 1048576 1
quiet 10
ready
";
    assert_eq!(before, expected);
    let expected = "xid 0 79 1
again 10
temperature 0 88
power 3 0
clock 0 1200
reasons 0 64
rates 0 97
width 0 4
pcie 0 123
ecc 0 2
";
    assert_eq!(after, expected);
}
