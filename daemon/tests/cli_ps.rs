//! What `stallscope ps` says about hosts made of files.

#[path = "../jobs/tests/fixture/mod.rs"]
mod fixture;

use std::path::Path;
use std::process::Command;

use fixture::{HostFiles, ID};

fn ps(root: &Path, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .arg("ps")
        .arg("--host-root")
        .arg(root)
        .args(args)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is text")
}

/// One of each: torchrun in a pod, MPI under Slurm, a lone program, and what is in no job.
fn host() -> HostFiles {
    let files = HostFiles::new();
    files.file("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n");
    files.file(
        &format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"),
        r#"{"annotations":{"io.kubernetes.cri.sandbox-name":"llama-0","io.kubernetes.cri.sandbox-namespace":"ml"}}"#,
    );
    let pod = "0::/kubepods.slice/kubepods-podU_I_D.slice/cri-containerd-ID.scope\n";
    files.process(100, 1, "torchrun").python("/v/bin/torchrun train.py").cgroup(pod).write();
    for rank in 0..4 {
        let env = format!(
            "RANK={} WORLD_SIZE=8 LOCAL_RANK={rank} MASTER_ADDR=llama-master MASTER_PORT=29500",
            4 + rank
        );
        let pid = 200 + rank * 10;
        let main = files.process(pid, 100, "pt_main_thread").python("-u train.py").env(&env);
        main.env("CUDA_VISIBLE_DEVICES=0,1,2,3").torch_on_gpu(rank).threads(118).cgroup(pod).write();
        for loader in 1..=3 {
            files
                .process(pid + loader, pid, "pt_data_worker")
                .python("-u train.py")
                .env(&env)
                .cgroup(pod)
                .write();
        }
    }
    files.process(300, 1, "slurmstepd").runs("slurmstepd: [4242.0]").write();
    for rank in 0..2 {
        let env = format!(
            "SLURM_PROCID={rank} SLURM_NTASKS=2 SLURM_LOCALID={rank} SLURM_JOB_ID=4242 SLURM_STEP_ID=0"
        );
        let state = if rank == 1 { 'T' } else { 'R' };
        let task = files
            .process(310 + rank, 300, "lmp")
            .env(&env)
            .maps(&["/opt/mpich/lib/libmpi.so.12"])
            .state(state);
        task.cgroup(&format!("0::/system.slice/slurmstepd.scope/job_4242/step_0/user/task_{rank}\n")).write();
    }
    files
        .process(400, 1, "python")
        .python("serve\u{1b}[31m.py")
        .torch_on_gpu(5)
        .cgroup("0::/lxc.payload.box\n")
        .started(9_000)
        .write();
    files.process(500, 1, "python").python("-m http.server").write();
    files.process(600, 1, "mpirun").runs("mpirun -n 2 ./gone").write();
    files
}

#[test]
fn text_and_json() {
    let files = host();
    let text = ps(files.root(), &["--all"]);
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    insta::assert_snapshot!("ps", text);
    let mut json: serde_json::Value = serde_json::from_str(&ps(files.root(), &["--all", "--json"])).unwrap();
    assert_eq!(json["jobs"].as_array().map(Vec::len), Some(3));
    // Every job and rank has the same keys: one shows them.
    json["jobs"].as_array_mut().unwrap().retain(|job| job["world_size"] == 8);
    json["jobs"][0]["ranks"].as_array_mut().unwrap().truncate(1);
    insta::assert_snapshot!("ps_json", format!("{json:#}"));
}

#[test]
fn an_empty_host_says_what_was_looked_for() {
    let files = HostFiles::new();
    insta::assert_snapshot!(ps(files.root(), &[]), @"
    no jobs: of 1 process none has a rank, computes on a GPU or has a framework loaded
      --all shows every process that runs Python, computes on a GPU or launches others
    ");
    std::fs::remove_dir_all(files.proc().join("1")).unwrap();
    assert!(ps(files.root(), &[]).contains("not seen: processes that this /proc hides"));
}

#[test]
fn a_host_without_proc_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .args(["ps", "--host-root"])
        .arg(folder.path())
        .output()
        .expect("the program runs");
    assert_eq!(output.status.code(), Some(6));
    assert!(output.stdout.is_empty());
}
