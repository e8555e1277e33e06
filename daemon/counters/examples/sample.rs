//! Prints two samples of this machine, a second apart: `cargo run -p stallscope-counters --example sample [CGROUP…]`.
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::time::{Duration, Instant};

use stallscope_counters::{Of, Options, Sampler};
use stallscope_schemas::units::TimeNs;

fn main() {
    let begin = Instant::now();
    let now = || TimeNs(i64::try_from(begin.elapsed().as_nanos()).unwrap_or(i64::MAX));
    let mut sampler =
        Sampler::new(Options { cgroups: std::env::args().skip(1).collect(), ..Options::default() });
    println!("opened in {:?}", begin.elapsed());
    sampler.sample(now());
    std::thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    let sample = sampler.sample(now());
    println!("sampled in {:?}", asked.elapsed());
    for gpu in sampler.devices() {
        println!("{} {} {}", gpu.uuid, gpu.index, gpu.name);
    }
    for value in &sample.values {
        let of = match &value.of {
            Of::Host => "host".to_owned(),
            Of::Gpu(uuid) => uuid.to_string(),
            Of::Port(port) => format!("port {port}"),
            Of::Cgroup(path) => format!("cgroup {path}"),
        };
        let over =
            if value.over_ns > 0 { format!(" in {} ms", value.over_ns / 1_000_000) } else { String::new() };
        println!("{of}: {} = {}{over}", value.name, value.value);
    }
    for process in &sample.processes {
        println!("{}: pid {} holds {:?} bytes", process.gpu, process.pid, process.memory_bytes);
    }
    for xid in &sample.events {
        println!("{}: Xid {}", xid.gpu, xid.number);
    }
    for absent in &sample.absent {
        println!("absent: {:?} {}: {}", absent.of, absent.name, absent.why);
    }
    for missing in sampler.missing() {
        println!("not seen: {missing}");
    }
}
