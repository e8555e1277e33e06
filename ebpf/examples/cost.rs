//! What following processes costs, as the kernel accounts for it: `cost SECONDS THRESHOLD_US PROBES PID…`.

use std::time::{Duration, Instant};

use stallscope_ebpf::cost::{Accounting, program_costs};
use stallscope_ebpf::{Kernel, ProbeId, Session, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, threshold, probes, pids @ ..] = arguments.as_slice() else {
        return Err("arguments".into());
    };
    let wanted: Vec<&str> = probes.split(',').collect();
    let settings = Settings {
        stack_threshold_ns: threshold.parse::<u64>()? * 1000,
        probes: ProbeId::all()
            .into_iter()
            .filter(|p| wanted.contains(&p.name()) || wanted == ["all"])
            .collect(),
        ..Settings::default()
    };
    let pids: Vec<u32> = pids.iter().map(|p| p.parse()).collect::<Result<_, _>>()?;
    let mut session = Session::load(&Kernel::detect(), settings)?;
    let mut records = 0u64;
    let _accounting = Accounting::start()?;
    {
        let reader = session.reader(|_| records += 1)?;
        session.attach(&pids)?;
        let end = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
        while Instant::now() < end {
            reader.poll(Duration::from_millis(50))?;
        }
        for cost in program_costs(&stallscope_ebpf::probes::programs()) {
            println!(
                "{:<16} {:>10} runs {:>6} ns each, {} missed, {} instructions verified",
                cost.name,
                cost.runs,
                cost.time_ns / cost.runs.max(1),
                cost.missed,
                cost.verified_instructions
            );
        }
        session.detach()?;
        reader.poll(Duration::ZERO)?;
    }
    println!("{records} records, lost {:?}", session.losses());
    Ok(())
}
