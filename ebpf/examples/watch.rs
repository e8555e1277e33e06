//! Prints the records of one process: `watch PID SECONDS [quiet]`.

use std::time::{Duration, Instant};

use stallscope_ebpf::{Kernel, Session, Settings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let pid: u32 = arguments.next().ok_or("which pid?")?.parse()?;
    let seconds: f64 = arguments.next().ok_or("how many seconds?")?.parse()?;
    let quiet = arguments.next().is_some();
    let begin = Instant::now();
    let mut session = Session::load(&Kernel::detect(), Settings::default())?;
    eprintln!("loaded after {:?}", begin.elapsed());
    let mut kinds = std::collections::BTreeMap::<String, u64>::new();
    {
        let reader = session.reader(|event| match event {
            Ok(event) => {
                let text = format!("{event:?}");
                *kinds.entry(text.split(['(', ' ']).next().unwrap_or("").to_owned()).or_default() += 1;
                if !quiet {
                    println!("{text}");
                }
            }
            Err(malformed) => println!("{malformed}"),
        })?;
        session.attach(&[pid])?;
        eprintln!("attached after {:?}", begin.elapsed());
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            reader.poll(Duration::from_millis(50))?;
        }
        let stop = Instant::now();
        session.detach()?;
        eprintln!("detached in {:?}", stop.elapsed());
        reader.poll(Duration::ZERO)?;
    }
    eprintln!("{kinds:?} lost {:?}", session.losses());
    for (probe, standing) in session.standings() {
        eprintln!("{probe}: {standing:?}");
    }
    Ok(())
}
