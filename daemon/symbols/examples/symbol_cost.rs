//! What symbols cost: `symbol_cost PID MODULE [STACKS]` resolves that many stacks of 20 distinct addresses of a module
//! that the process maps, and prints time and resident memory. Addresses are spread evenly over the module's code, so
//! this is worse than any real stack.

use std::error::Error;
use std::fs;
use std::time::Instant;

use stallscope_symbols::{Limits, Symbolizer};

const DEPTH: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: symbol_cost PID MODULE [STACKS]";
    let pid: u32 = arguments.next().ok_or(usage)?.parse()?;
    let module = arguments.next().ok_or(usage)?;
    let stacks: u64 = arguments.next().map_or(Ok(1000), |text| text.parse())?;

    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.contains(" r-xp ") && line.contains(&module));
    let line = line.ok_or("the process maps no such module")?;
    let (start, rest) = line.split_once('-').ok_or(usage)?;
    let (start, end) =
        (u64::from_str_radix(start, 16)?, u64::from_str_radix(rest.split(' ').next().unwrap_or(""), 16)?);

    report("begin");
    let clock = Instant::now();
    let mut symbolizer = Symbolizer::new(Limits::default());
    symbolizer.process_seen(pid)?;
    println!("process seen          {:>9.1?}  {:?}", clock.elapsed(), symbolizer.footprint());

    let step = ((end - start) / (stacks * DEPTH)).max(1);
    let clock = Instant::now();
    let first = symbolizer.user(pid, &[start + (end - start) / 2]);
    println!("first address         {:>9.1?}  {}", clock.elapsed(), first.first().ok_or("no frame")?);
    report("after the first");

    let (mut named, mut all, mut bytes) = (0, 0, 0);
    let clock = Instant::now();
    for stack in 0..stacks {
        let addresses: Vec<_> = (0..DEPTH).map(|depth| start + (stack + depth * stacks) * step).collect();
        for frame in symbolizer.user(pid, &addresses) {
            named += u64::from(frame.missing.is_none());
            all += 1;
            bytes += frame.to_string().len();
        }
    }
    let took = clock.elapsed();
    println!(
        "{stacks} stacks of {DEPTH}     {took:>9.1?}  {named} of {all} frames named, {bytes} bytes of text"
    );
    report("after all");
    let clock = Instant::now();
    symbolizer.kernel(&[0xffff_ffff_8100_0100]);
    println!("kernel's names        {:>9.1?}", clock.elapsed());
    report("with the kernel's names");
    symbolizer.trim();
    report("after trim");
    println!("{:?}", symbolizer.footprint());
    Ok(())
}

fn report(when: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = |line: &&str| {
        ["VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"].iter().any(|w| line.starts_with(w))
    };
    let lines: Vec<_> =
        status.lines().filter(wanted).map(|line| line.replace('\t', "").replace("  ", "")).collect();
    println!("{when}: {}", lines.join(", "));
}
