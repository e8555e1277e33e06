//! What a target takes, and how it is refused.

mod fixture;

use std::fs;

use fixture::{HostFiles, ID, UID};
use stallscope_jobs::{Host, ResolveError, Roots, Selection, Target};

const OTHER: &str = "3f4c00000000000000000000000000000000000000000000000000000000000b";

/// Two ranks of torchrun in a container, started by sudo; a lone program; things that are no targets.
fn host() -> (HostFiles, Host) {
    let files = HostFiles::new();
    let cgroup = "0::/system.slice/docker-ID.scope\n";
    files.process(90, 1, "sudo").write();
    files.process(100, 90, "torchrun").python("/v/bin/torchrun t.py").cgroup(cgroup).write();
    for rank in 0..2 {
        let env = format!(
            "RANK={rank} WORLD_SIZE=2 MASTER_ADDR=h MASTER_PORT=1 SLURM_JOB_ID=77 SLURM_STEP_ID={rank}"
        );
        files.process(200 + 10 * rank, 100, "python").python("t.py").env(&env).cgroup(cgroup).write();
        files
            .process(201 + 10 * rank, 200 + 10 * rank, "python")
            .python("t.py")
            .env(&env)
            .cgroup(cgroup)
            .write();
        files.process(202 + 10 * rank, 201 + 10 * rank, "cc1").env(&env).cgroup(cgroup).write();
    }
    files.process(300, 1, "redis-server").cgroup(&format!("0::/docker/{OTHER}\n")).write();
    files.process(301, 300, "redis-child").cgroup(&format!("0::/docker/{OTHER}\n")).write();
    files.process(400, 1, "defunct").state('Z').write();
    files.process(500, 2, "kworker/0:1").kernel_thread().write();
    files
        .process(600, 1, "pause")
        .cgroup("0::/kubepods/podUID/000000000000000000000000000000000000000000000000000000000000000c\n")
        .write();
    files
        .process(601, 1, "server")
        .cgroup("0::/kubepods/podUID/000000000000000000000000000000000000000000000000000000000000000d\n")
        .own_file("etc/hostname", "web-0\n")
        .env("POD_NAMESPACE=prod")
        .write();
    let host = Host::scan_roots(&Roots { proc: files.proc(), host: files.root().to_owned() }).unwrap();
    (files, host)
}

fn pid(pid: u32) -> Target {
    Target::Pid { pids: vec![pid], only: false }
}

/// Pids of ranks with those of their helpers.
fn taken(selection: &Selection) -> Vec<(u32, Vec<u32>)> {
    selection.ranks().map(|r| (r.process.pid, r.helpers.iter().map(|h| h.pid).collect())).collect()
}

#[test]
fn any_process_of_a_job_takes_all_its_ranks() {
    let (_files, host) = host();
    let whole = vec![(200, vec![201, 202]), (210, vec![211, 212])];
    for named in [200, 210, 201, 212, 100, 90] {
        assert_eq!(taken(&pid(named).resolve(&host).unwrap()), whole, "--pid {named}");
    }
    let both = Target::Pid { pids: vec![200, 210, 202], only: false }.resolve(&host).unwrap();
    assert_eq!((taken(&both), both.jobs.len()), (whole, 1));
}

#[test]
fn only_takes_a_process_and_what_is_below_it() {
    let (_files, host) = host();
    let only = |pid| Target::Pid { pids: vec![pid], only: true }.resolve(&host).unwrap();
    let rank = only(210);
    assert_eq!(taken(&rank), [(210, vec![211, 212])]);
    assert_eq!(rank.jobs[0].ranks[0].rank, Some(1), "a rank keeps its number");
    assert_eq!(taken(&only(201)), [(201, vec![202])]);
    let two = Target::Pid { pids: vec![200, 300], only: true }.resolve(&host).unwrap();
    assert_eq!(taken(&two), [(200, vec![201, 202]), (300, vec![301])]);
}

#[test]
fn a_process_in_no_job_is_a_job_of_one() {
    let (_files, host) = host();
    let selection = pid(300).resolve(&host).unwrap();
    assert_eq!(taken(&selection), [(300, vec![301])]);
    let job = &selection.jobs[0];
    assert_eq!((job.id.as_str(), job.name.as_str(), job.ranks[0].rank), ("pid-300", "redis-server", None));
}

#[test]
fn jobs_by_id_and_by_its_beginning() {
    let (_files, host) = host();
    let id = host.jobs()[0].id.clone();
    for text in [id.as_str(), "torch", "t"] {
        assert_eq!(Target::Job(text.to_owned()).resolve(&host).unwrap().jobs[0].id, id);
    }
    for text in ["", "x"] {
        let error = Target::Job(text.to_owned()).resolve(&host).unwrap_err();
        assert_eq!(error, ResolveError::NoSuchJob { id: text.to_owned(), near: vec![id.clone()] });
        assert!(error.to_string().contains(&id), "{error}");
    }
}

#[test]
fn containers_by_id_prefix_and_what_is_like_it() {
    let (files, host) = host();
    let container = |text: &str| Target::Container(text.to_owned());
    for text in [ID, &ID[..12], "3f4c1"] {
        assert_eq!(taken(&container(text).resolve(&host).unwrap()).len(), 2, "{text}");
    }
    // Without a job in it: its first process, and the rest as helpers.
    assert_eq!(taken(&container(OTHER).resolve(&host).unwrap()), [(300, vec![301])]);
    let error = container("3f4c").resolve(&host).unwrap_err();
    let short = |id: &str| id[..12].to_owned();
    assert_eq!(
        error,
        ResolveError::AmbiguousContainer { text: "3f4c".into(), matches: vec![short(OTHER), short(ID)] }
    );
    let error = container("f4c1b").resolve(&host).unwrap_err();
    assert_eq!(error, ResolveError::NoSuchContainer { text: "f4c1b".into(), near: vec![short(ID)] });
    assert!(matches!(container("").resolve(&host), Err(ResolveError::NoSuchContainer { .. })));

    files.file(&format!("var/lib/docker/containers/{ID}/config.v2.json"), r#"{"Name":"/train\u001b[31m"}"#);
    assert_eq!(taken(&container("train\u{1b}[31m").resolve(&host).unwrap()).len(), 2);
    let error = container("trai").resolve(&host).unwrap_err().to_string();
    assert!(error.contains("(train [31m)"), "control characters do not reach the terminal: {error:?}");
}

#[test]
fn pods_by_namespace_and_name_or_uid() {
    let (_files, host) = host();
    let pod = |text: &str| Target::pod(text).unwrap().resolve(&host);
    assert_eq!(taken(&pod("prod/web-0").unwrap()), [(601, vec![])]);
    // By uid, also the container that only holds the namespaces, which is no rank.
    let by_uid = pod(&format!("prod/{UID}")).unwrap();
    assert_eq!(taken(&by_uid), [(601, vec![])]);
    assert_eq!(by_uid.notes.len(), 1, "the holding container does not say its namespace");
    let Err(ResolveError::NoSuchPod { near, .. }) = pod("dev/web-0") else { panic!() };
    assert_eq!(near, ["prod/web-0"]);
    for text in ["web-0", "/web-0", "prod/", "a/b/c"] {
        assert!(Target::pod(text).is_err(), "{text}");
    }
}

#[test]
fn slurm_jobs_and_steps() {
    let (_files, host) = host();
    let slurm = |text: &str| Target::slurm(text).unwrap().resolve(&host);
    assert_eq!(taken(&slurm("77").unwrap()).len(), 2);
    assert_eq!(taken(&slurm("77.1").unwrap()), [(210, vec![211, 212])]);
    let Err(ResolveError::NoSuchSlurmJob { near, .. }) = slurm("7") else { panic!() };
    assert_eq!(near, ["77.0", "77.1"]);
    for text in ["", "x", "77.", "-1"] {
        assert!(Target::slurm(text).is_err(), "{text}");
    }
}

#[test]
fn what_cannot_be_recorded_says_why() {
    let (files, host) = host();
    let refused = |n| pid(n).resolve(&host).unwrap_err();
    assert_eq!(refused(4711), ResolveError::NoSuchProcess { pid: 4711 });
    assert_eq!(refused(400), ResolveError::Zombie { pid: 400 });
    assert_eq!(refused(500), ResolveError::KernelThread { pid: 500, comm: "kworker/0:1".into() });
    assert_eq!(Target::Pid { pids: vec![], only: false }.resolve(&host), Err(ResolveError::Nothing));

    // After the scan: one ends, another's pid is given to a new process, a third becomes a zombie.
    fs::remove_dir_all(files.proc().join("300")).unwrap();
    assert_eq!(refused(300), ResolveError::Exited { pid: 300 });
    fs::remove_dir_all(files.proc().join("210")).unwrap();
    files.process(210, 1, "other").started(999_999).write();
    assert_eq!(refused(210), ResolveError::Exited { pid: 210 });
    fs::remove_dir_all(files.proc().join("601")).unwrap();
    files.process(601, 1, "server").state('Z').write();
    assert_eq!(refused(601), ResolveError::Zombie { pid: 601 });

    // The job goes on without the rank that ended, and says so.
    let rest = pid(200).resolve(&host).unwrap();
    assert_eq!(taken(&rest), [(200, vec![201, 202])]);
    assert_eq!(rest.notes, ["process 210 ended meanwhile and is left out"]);
}
