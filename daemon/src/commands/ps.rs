//! `stallscope ps`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use stallscope_core::report::text::short_name;
use stallscope_jobs::{Container, Gpus, Hidden, Host, Job, Pod, ProcessId, Rank, Roots, State};

use crate::args::PsArgs;
use crate::failure::{Failure, Outcome};
use crate::files::print;

/// Columns of the widest line.
const WIDTH: usize = 110;
/// Columns of a name that someone else chose.
const NAME: usize = 40;

pub(crate) fn run(args: &PsArgs) -> Result<Outcome, Failure> {
    let roots = Roots { proc: args.host_root.join("proc"), host: args.host_root.clone() };
    let host = Host::scan_roots(&roots).map_err(|source| {
        let text = format!("{}: {source}", roots.proc.display());
        Failure::Proc { source: std::io::Error::new(source.kind(), text) }
    })?;
    let users = Users::read(&args.host_root);
    let text = if args.json {
        json_text(&host, &users, args.all)
    } else {
        plain_text(&host, &users, args.all, sees_all())
    };
    print(&text)?;
    Ok(Outcome::Done)
}

/// Names of users, as the host's own file has them.
struct Users(BTreeMap<u32, String>);

impl Users {
    /// A password file of more than this is cut: the rest are numbers.
    const BYTES: u64 = 4 << 20;

    fn read(root: &Path) -> Self {
        let mut bytes = Vec::new();
        if let Ok(file) = std::fs::File::open(root.join("etc/passwd")) {
            // What was read before an error is still true.
            let _ = file.take(Self::BYTES).read_to_end(&mut bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        let names = text.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
        });
        Self(names.collect())
    }

    fn name(&self, uid: Option<u32>) -> Option<&str> {
        self.0.get(&uid?).map(String::as_str)
    }

    fn show(&self, uid: Option<u32>) -> String {
        match (self.name(uid), uid) {
            (Some(name), _) => short_name(name, 16),
            (None, Some(uid)) => format!("uid {uid}"),
            (None, None) => "unknown user".to_owned(),
        }
    }
}

/// Whether this process has what it takes to look at any other (CAP_SYS_PTRACE): more privilege shows no more.
fn sees_all() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    // CAP_DAC_READ_SEARCH, or CAP_DAC_OVERRIDE, which says more.
    set & 1 << 19 != 0 && set & 0b110 != 0
}

fn plain_text(host: &Host, users: &Users, all: bool, sees_all: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_plain(host, users, all, sees_all, &mut out);
    out
}

fn write_plain(host: &Host, users: &Users, all: bool, sees_all: bool, out: &mut String) -> std::fmt::Result {
    for job in host.jobs() {
        write_job(users, job, out)?;
        writeln!(out)?;
    }
    if host.jobs().is_empty() {
        let looked = count(host.processes().filter(|p| !p.kernel_thread).count(), "process", "processes");
        writeln!(out, "no jobs: of {looked} none has a rank, computes on a GPU or has a framework loaded")?;
        if !all {
            writeln!(
                out,
                "  --all shows every process that runs Python, computes on a GPU or launches others"
            )?;
        }
    }
    if all {
        write_others(host, users, out)?;
    }
    write_hidden(host.hidden(), sees_all, out)
}

/// What of the host was not seen.
fn write_hidden(hidden: Hidden, sees_all: bool, out: &mut String) -> std::fmt::Result {
    if hidden.closed > 0 {
        let closed = count(hidden.closed as usize, "process", "processes");
        if sees_all {
            writeln!(
                out,
                "not seen: {closed} closed to root as well (protected by a security module or a user namespace)"
            )?;
        } else {
            writeln!(
                out,
                "not seen: {closed} of other users or protected (root sees more; or CAP_SYS_PTRACE and \
                 CAP_DAC_READ_SEARCH)"
            )?;
        }
    }
    if hidden.hang > 0 {
        let hang = count(hidden.hang as usize, "process", "processes");
        writeln!(
            out,
            "not asked: {hang} that hang in the kernel (what they run as is shown, not what it was called with)"
        )?;
    }
    if hidden.unreadable > 0 || hidden.unlisted {
        writeln!(out, "not seen: processes that this /proc hides (hidepid, or not the host's /proc)")?;
    }
    Ok(())
}

fn write_job(users: &Users, job: &Job, out: &mut String) -> std::fmt::Result {
    let Some(first) = job.ranks.first() else { return Ok(()) };
    let numbers: Vec<u32> = job.ranks.iter().filter_map(|r| r.rank).collect();
    let ranks = match (numbers.is_empty(), job.world_size) {
        (true, _) => count(job.ranks.len(), "rank", "ranks"),
        (false, world) => {
            let word = if numbers.len() == 1 { "rank" } else { "ranks" };
            let of = world.map(|w| format!(" of {w}")).unwrap_or_default();
            format!("{word} {}{of}", spans(&numbers))
        }
    };
    let mut head = vec![format!("{}  {}", job.id, short_name(&job.name, NAME)), ranks];
    head.extend(job.launchers.iter().take(3).map(|l| format!("{} {}", l.kind.name(), l.process.pid)));
    head.push(users.show(first.uid));
    write_list(out, "", &head)?;

    let mut facts: Vec<String> = Vec::new();
    let frameworks = union(job, |r| r.frameworks.iter().map(|f| f.name()).collect());
    let libraries = union(job, |r| r.collectives.iter().map(|c| c.kind.name()).collect());
    facts.extend((!frameworks.is_empty()).then(|| frameworks.join(", ")));
    facts.extend((!libraries.is_empty()).then(|| format!("collectives {}", libraries.join(", "))));
    facts.extend(common(job, |r| r.python).map(|python| format!("Python {python}")));
    let places: Vec<String> = place(first);
    let one_place = job.ranks.iter().all(|r| place(r) == places);
    if one_place {
        facts.extend(places);
    }
    facts.extend(common(job, |r| r.master.clone()).map(|m| format!("master {}", short_name(&m, NAME))));
    if job.ranks.iter().any(|r| !r.examined) {
        facts.push("libraries not readable".to_owned());
    }
    write_list(out, "  ", &facts)?;

    writeln!(
        out,
        "  {:>6} {:>8} {:>6} {:>8} {:>8}  {:<22} elapsed",
        "rank", "pid", "local", "threads", "helpers", "GPU"
    )?;
    for rank in &job.ranks {
        let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let mut line = format!(
            "  {:>6} {:>8} {:>6} {:>8} {:>8}  {:<22} {}",
            number(rank.rank),
            rank.process.pid,
            number(rank.local_rank),
            rank.threads,
            rank.helpers.len(),
            gpus(&rank.gpus),
            elapsed(rank.elapsed_ms),
        );
        if !matches!(rank.state, State::Running | State::Sleeping) {
            let _ = write!(line, "  {}", rank.state.name());
        }
        writeln!(out, "{}", line.trim_end())?;
        if !one_place {
            write_list(out, &" ".repeat(18), &place(rank))?;
        }
    }
    Ok(())
}

fn write_others(host: &Host, users: &Users, out: &mut String) -> std::fmt::Result {
    let others = host.bystanders();
    if others.is_empty() {
        return writeln!(out, "no other process runs Python, computes on a GPU or launches others");
    }
    writeln!(out, "in no job")?;
    writeln!(out, "  {:>8}  {:<16} {:<14} {:<26} command", "pid", "user", "elapsed", "why")?;
    for other in others {
        let Some(process) = host.process(other.process.pid) else { continue };
        writeln!(
            out,
            "  {:>8}  {:<16} {:<14} {:<26} {}",
            other.process.pid,
            users.show(process.uid),
            elapsed(host.elapsed_ms(other.process)),
            other.why,
            short_name(&process.cmdline.join(" "), NAME)
        )?;
    }
    Ok(())
}

/// Writes items with dots between, in lines of at most [`WIDTH`] columns.
fn write_list(out: &mut String, indent: &str, items: &[String]) -> std::fmt::Result {
    let mut column = 0;
    for (at, item) in items.iter().enumerate() {
        let width = item.chars().count();
        if column > 0 && column + 3 + width > WIDTH {
            writeln!(out)?;
            column = 0;
        }
        if column == 0 {
            // Lines that go on are set in.
            let more = if at == 0 { "" } else { "  " };
            write!(out, "{indent}{more}{item}")?;
            column = indent.len() + more.len() + width;
        } else {
            write!(out, " · {item}")?;
            column += 3 + width;
        }
    }
    if column > 0 { writeln!(out) } else { Ok(()) }
}

/// Where a rank is: container, pod, Slurm step.
fn place(rank: &Rank) -> Vec<String> {
    let container = rank.container.as_ref().map(|c: &Container| {
        let name = c.name.as_ref().map(|n| format!(" ({})", short_name(n, NAME))).unwrap_or_default();
        let runtime = match c.runtime.name() {
            "unknown" => "container",
            known => known,
        };
        format!("{runtime} {}{name}", short_id(&c.id))
    });
    let pod = rank.pod.as_ref().map(|pod: &Pod| {
        let name = pod.name.as_deref().or(pod.uid.as_deref()).unwrap_or("?");
        format!(
            "pod {}/{}",
            short_name(pod.namespace.as_deref().unwrap_or("?"), NAME),
            short_name(name, NAME)
        )
    });
    let slurm = rank.slurm.as_ref().map(|slurm| format!("slurm {slurm}"));
    container.into_iter().chain(pod).chain(slurm).collect()
}

/// The first twelve digits, as every container tool shows them; the names of LXC are whole.
fn short_id(id: &str) -> String {
    let hex = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { id.chars().take(12).collect() } else { short_name(id, NAME) }
}

/// Open GPUs, and what the process was told to see.
fn gpus(gpus: &Gpus) -> String {
    let mut text = if gpus.compute() { spans(&gpus.nvidia) } else { String::new() };
    if gpus.kfd {
        text = "AMD".to_owned();
    }
    if let Some((_, visible)) = &gpus.visible {
        let sees = if visible.is_empty() { "sees none".to_owned() } else { format!("sees {visible}") };
        text = if text.is_empty() { sees } else { format!("{text}, {sees}") };
    }
    if text.is_empty() { "-".to_owned() } else { short_name(&text, 22) }
}

/// `0-3,6`
fn spans(sorted: &[u32]) -> String {
    let mut out = String::new();
    let mut numbers = sorted.iter().copied().peekable();
    while let Some(first) = numbers.next() {
        let mut last = first;
        while let Some(next) = numbers.next_if(|&n| n == last || Some(n) == last.checked_add(1)) {
            last = next;
        }
        let comma = if out.is_empty() { "" } else { "," };
        let _ =
            if first == last { write!(out, "{comma}{first}") } else { write!(out, "{comma}{first}-{last}") };
    }
    out
}

fn count(n: usize, one: &str, several: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {several}") }
}

/// `45 s`, `13 min 5 s`, `2 h 13 min`, `3 d 4 h`
fn elapsed(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

/// What all ranks have, if they all have the same.
fn common<T: PartialEq>(job: &Job, of: impl Fn(&Rank) -> Option<T>) -> Option<T> {
    let first = of(job.ranks.first()?)?;
    job.ranks.iter().all(|r| of(r).as_ref() == Some(&first)).then_some(first)
}

/// What any rank has, in the order of the first that has it.
fn union<'j>(job: &'j Job, of: impl Fn(&'j Rank) -> Vec<&'static str>) -> Vec<&'static str> {
    let mut all = Vec::new();
    for name in job.ranks.iter().flat_map(of) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn json_text(host: &Host, users: &Users, all: bool) -> String {
    let process = |id: &ProcessId| json!({"pid": id.pid, "start_ticks": id.start_ticks});
    let jobs: Vec<Value> = host
        .jobs()
        .iter()
        .map(|job| {
            let launchers: Vec<Value> = job
                .launchers
                .iter()
                .map(|l| json!({"kind": l.kind.name(), "pid": l.process.pid, "start_ticks": l.process.start_ticks}))
                .collect();
            let ranks: Vec<Value> = job.ranks.iter().map(|rank| json_rank(rank, users, process)).collect();
            json!({
                "id": job.id,
                "name": job.name,
                "world_size": job.world_size,
                "launchers": launchers,
                "ranks": ranks,
            })
        })
        .collect();
    let hidden = host.hidden();
    let mut root = json!({
        "schema_version": 1,
        "processes": host.processes().filter(|p| !p.kernel_thread).count(),
        "hidden": {
            "other_users": hidden.closed,
            "unreadable": hidden.unreadable,
            "unlisted": hidden.unlisted,
            "hang": hidden.hang,
        },
        "jobs": jobs,
    });
    if all {
        let others: Vec<Value> = host
            .bystanders()
            .iter()
            .filter_map(|other| {
                let p = host.process(other.process.pid)?;
                Some(json!({
                    "pid": p.id.pid,
                    "start_ticks": p.id.start_ticks,
                    "why": other.why,
                    "uid": p.uid,
                    "user": users.name(p.uid),
                    "comm": p.comm,
                    "cmdline": p.cmdline,
                    "elapsed_ms": host.elapsed_ms(p.id),
                }))
            })
            .collect();
        root["others"] = Value::Array(others);
    }
    format!("{root:#}\n")
}

fn json_rank(rank: &Rank, users: &Users, process: impl Fn(&ProcessId) -> Value) -> Value {
    let collectives: Vec<Value> = rank
        .collectives
        .iter()
        .map(|c| json!({"library": c.kind.name(), "path": c.path, "deleted": c.deleted, "within": c.within}))
        .collect();
    json!({
        "pid": rank.process.pid,
        "start_ticks": rank.process.start_ticks,
        "rank": rank.rank,
        "world_size": rank.world_size,
        "local_rank": rank.local_rank,
        "source": rank.source.map(|s| s.name()),
        "master": rank.master,
        "helpers": rank.helpers.iter().map(process).collect::<Vec<_>>(),
        "container": rank.container.as_ref().map(|c| json!({"runtime": c.runtime.name(), "id": c.id, "name": c.name})),
        "pod": rank.pod.as_ref().map(|p| json!({
            "uid": p.uid,
            "namespace": p.namespace,
            "name": p.name,
            "named_by": p.named_by.map(|s| s.name()),
        })),
        "slurm": rank.slurm.as_ref().map(|s| json!({"job": s.job, "step": s.step})),
        "frameworks": rank.frameworks.iter().map(|f| f.name()).collect::<Vec<_>>(),
        "collectives": collectives,
        "gpus": {
            "compute": rank.gpus.compute(),
            "nvidia": rank.gpus.nvidia,
            "amd": rank.gpus.kfd,
            "visible": rank.gpus.visible.as_ref().map(|(name, value)| json!({"variable": name, "value": value})),
        },
        "python": rank.python.map(|p| p.to_string()),
        "threads": rank.threads,
        "state": rank.state.name(),
        "uid": rank.uid,
        "user": users.name(rank.uid),
        "comm": rank.comm,
        "cmdline": rank.cmdline,
        "ns_pids": rank.ns_pids,
        "elapsed_ms": rank.elapsed_ms,
        "examined": rank.examined,
    })
}

#[cfg(test)]
mod tests {
    use stallscope_jobs::Hidden;

    use super::{elapsed, spans, write_hidden, write_list};

    #[test]
    fn root_is_not_told_that_root_sees_more() {
        let hidden = Hidden { closed: 1, ..Hidden::default() };
        let told = |sees_all| {
            let mut out = String::new();
            write_hidden(hidden, sees_all, &mut out).unwrap();
            out
        };
        assert!(told(false).starts_with("not seen: 1 process of other users or protected (root sees more;"));
        assert!(told(true).starts_with("not seen: 1 process closed to root as well"), "{}", told(true));
        assert!(!told(true).contains("sees more"));
    }

    #[test]
    fn ranks_are_told_in_spans() {
        assert_eq!(spans(&[0, 1, 2, 3, 6, 8, 9]), "0-3,6,8-9");
        assert_eq!(spans(&[u32::MAX]), "4294967295");
        assert_eq!(spans(&[]), "");
    }

    #[test]
    fn elapsed_time_in_two_units() {
        let shown: Vec<String> = [999, 59_999, 785_000, 7_980_000, 273_600_000].map(elapsed).into();
        assert_eq!(shown, ["0 s", "59 s", "13 min 5 s", "2 h 13 min", "3 d 4 h"]);
    }

    #[test]
    fn long_lists_go_on_in_the_next_line() {
        let mut out = String::new();
        write_list(&mut out, "  ", &vec!["x".repeat(50); 3]).unwrap();
        let widths: Vec<usize> = out.lines().map(|l| l.chars().count()).collect();
        assert_eq!(widths, [105, 54]);
    }
}
