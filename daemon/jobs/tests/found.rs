//! Which jobs are found on hosts made of files.

mod fixture;

use fixture::{HostFiles, ID, UID};
use stallscope_jobs::{
    Collective, ContainerRuntime, Framework, Host, Job, LauncherKind, PodNameSource, Roots, Source,
};

fn scan(files: &HostFiles) -> Host {
    Host::scan_roots(&Roots { proc: files.proc(), host: files.root().to_owned() }).unwrap()
}

/// Rank numbers and pids.
fn seats(job: &Job) -> Vec<(Option<u32>, u32)> {
    job.ranks.iter().map(|r| (r.rank, r.process.pid)).collect()
}

fn helpers(job: &Job, rank: usize) -> Vec<u32> {
    job.ranks[rank].helpers.iter().map(|h| h.pid).collect()
}

fn only_job(host: &Host) -> &Job {
    assert_eq!(host.jobs().len(), 1, "{:#?}", host.jobs());
    &host.jobs()[0]
}

fn torch_env(rank: u32, world: u32, port: u32) -> String {
    format!(
        "RANK={rank} WORLD_SIZE={world} LOCAL_RANK={rank} MASTER_ADDR=127.0.0.1 MASTER_PORT={port} \
         TORCHELASTIC_RUN_ID=none"
    )
}

#[test]
fn torchrun_with_loaders_and_a_compiler() {
    let files = HostFiles::new();
    files.process(100, 1, "torchrun").python("/v/bin/torchrun --nproc-per-node 2 train.py").write();
    for rank in 0..2 {
        let pid = 200 + rank * 100;
        let env = torch_env(rank, 2, 29500);
        files
            .process(pid, 100, "pt_main_thread")
            .python("-u train.py")
            .env(&env)
            .env("CUDA_VISIBLE_DEVICES=0,1")
            .torch_on_gpu(rank)
            .threads(90)
            .write();
        files
            .process(pid + 1, pid, "pt_data_worker")
            .python("-u train.py")
            .env(&env)
            .torch_on_gpu(rank)
            .write();
        files.process(pid + 2, pid, "sh").runs("sh -c ptxas").env(&env).write();
        files.process(pid + 3, pid + 2, "ptxas").env(&env).write();
        files.process(pid + 4, pid, "python").python("").env(&env).state('Z').write();
    }
    let host = scan(&files);
    let job = only_job(&host);
    assert_eq!(seats(job), [(Some(0), 200), (Some(1), 300)]);
    assert_eq!((helpers(job, 0), helpers(job, 1)), (vec![201, 202, 203], vec![301, 302, 303]));
    assert_eq!((job.world_size, job.name.as_str()), (Some(2), "train.py"));
    assert_eq!(
        job.launchers.iter().map(|l| (l.kind, l.process.pid)).collect::<Vec<_>>(),
        [(LauncherKind::Torchrun, 100)]
    );
    let rank = &job.ranks[1];
    assert_eq!((rank.local_rank, rank.source, rank.threads), (Some(1), Some(Source::Torch), 90));
    assert_eq!(rank.frameworks, [Framework::PyTorch]);
    let libraries: Vec<_> = rank.collectives.iter().map(|c| (c.kind, c.within)).collect();
    assert_eq!(libraries, [(Collective::Nccl, false), (Collective::Gloo, true)]);
    assert_eq!((rank.gpus.nvidia.as_slice(), rank.gpus.compute()), ([1].as_slice(), true));
    assert_eq!(rank.gpus.visible, Some(("CUDA_VISIBLE_DEVICES", "0,1".to_owned())));
    assert_eq!(rank.python.map(|p| p.to_string()).as_deref(), Some("3.11"));
    assert_eq!(rank.master.as_deref(), Some("127.0.0.1:29500"));
    // 10,000 s of uptime less 9903.00 s.
    assert_eq!(rank.elapsed_ms, 97_000);
    assert!(job.id.starts_with("torch-"), "{}", job.id);
    assert_eq!(scan(&files).jobs()[0].id, job.id, "an id is the same each time");
}

#[test]
fn two_torchruns_of_one_port_in_two_network_namespaces_are_two_jobs() {
    let files = HostFiles::new();
    for (launcher, net) in [(100, 7), (500, 8)] {
        files.process(launcher, 1, "torchrun").python("-m torch.distributed.run t.py").net(net).write();
        for rank in 0..2 {
            let env = torch_env(rank, 2, 29500);
            files.process(launcher + 1 + rank, launcher, "python").python("t.py").env(&env).net(net).write();
        }
    }
    let host = scan(&files);
    let found: Vec<_> = host.jobs().iter().map(seats).collect();
    assert_eq!(found, [[(Some(0), 101), (Some(1), 102)], [(Some(0), 501), (Some(1), 502)]]);
    assert_ne!(host.jobs()[0].id, host.jobs()[1].id);
}

#[test]
fn mpirun_through_shells_that_translate() {
    let files = HostFiles::new();
    files.process(100, 1, "mpirun").runs("mpirun -n 2 ./run.sh").write();
    for rank in 0..2 {
        let env = format!(
            "OMPI_COMM_WORLD_RANK={rank} OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK={rank} \
             PMIX_RANK={rank} PMIX_NAMESPACE=prterun-n0-100@1"
        );
        let shell = 200 + 10 * rank;
        files.process(shell, 100, "bash").runs("/bin/bash ./run.sh").env(&env).write();
        files.process(shell + 1, shell, "nvidia-smi").env(&env).write();
        files.process(shell + 2, shell, "a.out").env(&env).maps(&["/o/lib/libmpi.so.40"]).write();
    }
    let host = scan(&files);
    let job = only_job(&host);
    assert_eq!(seats(job), [(Some(0), 202), (Some(1), 212)]);
    assert_eq!(helpers(job, 0), [200, 201], "the shell and what else it runs belong to the rank");
    assert_eq!((job.ranks[0].source, job.name.as_str()), (Some(Source::OpenMpi), "a.out"));
    assert_eq!(job.ranks[0].collectives[0].kind, Collective::Mpi);
    assert!(job.id.starts_with("mpi-"));
}

#[test]
fn hydra_without_a_job_name_groups_by_its_proxy() {
    let files = HostFiles::new();
    files.process(90, 1, "mpiexec.hydra").write();
    files.process(100, 90, "hydra_pmi_proxy").write();
    for rank in 0..2 {
        let env = format!("PMI_RANK={rank} PMI_SIZE=4 MPI_LOCALRANKID={rank}");
        files.process(200 + rank, 100, "a.out").env(&env).write();
    }
    // A child whose variables differ a little is still of that rank.
    files.process(300, 200, "a.out").env("PMI_RANK=0 PMI_SIZE=4 MPI_LOCALRANKID=9").write();
    let host = scan(&files);
    let job = only_job(&host);
    assert_eq!(helpers(job, 0), [300]);
    assert_eq!((seats(job), job.world_size), (vec![(Some(0), 200), (Some(1), 201)], Some(4)));
    let chain: Vec<u32> = job.launchers.iter().map(|l| l.process.pid).collect();
    assert_eq!(chain, [100, 90], "innermost first");
}

#[test]
fn srun_by_cgroup_and_torchrun_inside_srun() {
    let files = HostFiles::new();
    files.process(100, 1, "slurmstepd").runs("slurmstepd: [4242.0]").write();
    let cgroup = |task: u32| format!("0::/system.slice/slurmstepd.scope/job_4242/step_0/user/task_{task}\n");
    let slurm = |rank: u32| {
        format!("SLURM_PROCID={rank} SLURM_NTASKS=2 SLURM_LOCALID={rank} SLURM_JOB_ID=4242 SLURM_STEP_ID=0")
    };
    for rank in 0..2 {
        files.process(200 + rank, 100, "a.out").env(&slurm(rank)).cgroup(&cgroup(rank)).write();
    }
    let host = scan(&files);
    let job = only_job(&host);
    assert_eq!((job.id.as_str(), seats(job)), ("slurm-4242.0", vec![(Some(0), 200), (Some(1), 201)]));
    assert_eq!(job.launchers[0].kind, LauncherKind::Srun);
    assert_eq!(job.ranks[0].slurm.as_ref().map(ToString::to_string).as_deref(), Some("4242.0"));

    // Another step: one torchrun a node, whose own Slurm rank is not a rank of the job.
    let slurm_1 = slurm(1).replace("STEP_ID=0", "STEP_ID=1");
    let cgroup_1 = cgroup(1).replace("step_0", "step_1");
    files
        .process(300, 100, "torchrun")
        .python("/v/bin/torchrun t.py")
        .env(&slurm_1)
        .cgroup(&cgroup_1)
        .write();
    files.process(301, 300, "python").python("-c resource_tracker").env(&slurm_1).cgroup(&cgroup_1).write();
    for local in 0..2 {
        let env = format!(
            "{} RANK={} WORLD_SIZE=4 LOCAL_RANK={local} MASTER_ADDR=n0 MASTER_PORT=1",
            slurm_1,
            2 + local
        );
        files.process(310 + local, 300, "python").python("t.py").env(&env).cgroup(&cgroup_1).write();
    }
    let host = scan(&files);
    assert_eq!(host.jobs().len(), 2, "{:#?}", host.jobs());
    let torch = &host.jobs()[1];
    assert_eq!((seats(torch), torch.world_size), (vec![(Some(2), 310), (Some(3), 311)], Some(4)));
    let kinds: Vec<_> = torch.launchers.iter().map(|l| l.kind).collect();
    assert_eq!(kinds, [LauncherKind::Torchrun, LauncherKind::Srun]);
    assert_eq!(torch.ranks[0].slurm.as_ref().map(|s| s.job.as_str()), Some("4242"));
}

#[test]
fn docker_in_both_versions_with_the_runtimes_name() {
    for cgroup in ["12:memory:/docker/ID\n1:name=systemd:/docker/ID\n", "0::/system.slice/docker-ID.scope\n"]
    {
        let files = HostFiles::new();
        files.file(
            &format!("var/lib/docker/containers/{ID}/config.v2.json"),
            r#"{"ID":"x","Name":"/llama","Extra":[1]}"#,
        );
        files
            .process(200, 1, "python")
            .python("train.py")
            .torch_on_gpu(0)
            .cgroup(cgroup)
            .ns_pids(&[200, 1])
            .write();
        let host = scan(&files);
        let rank = &only_job(&host).ranks[0];
        let container = rank.container.as_ref().unwrap();
        assert_eq!((container.runtime, container.id.as_str()), (ContainerRuntime::Docker, ID));
        assert_eq!(container.name.as_deref(), Some("llama"));
        assert_eq!((rank.pod.as_ref(), rank.ns_pids.as_slice()), (None, [200, 1].as_slice()));
        assert_eq!(only_job(&host).id, "pid-200");
    }
}

#[test]
fn pods_of_both_drivers_and_who_says_their_name() {
    let systemd = "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope\n";
    let crio = "0::/kubepods.slice/kubepods-podU_I_D.slice/crio-ID.scope\n";
    let cgroupfs = "5:cpu:/kubepods/burstable/podUID/ID\n0::/\n";
    for (cgroup, runtime) in [
        (systemd, ContainerRuntime::Containerd),
        (crio, ContainerRuntime::Crio),
        (cgroupfs, ContainerRuntime::Unknown),
    ] {
        let files = HostFiles::new();
        let rank = |files: &HostFiles| {
            files
                .process(200, 1, "python")
                .python("train.py")
                .torch_on_gpu(0)
                .cgroup(cgroup)
                .env("KUBERNETES_SERVICE_HOST=10.0.0.1 HOSTNAME=liar POD_NAME=other")
        };
        let pod = |files: &HostFiles| only_job(&scan(files)).ranks[0].pod.clone().unwrap();

        // What the process was told, and what the kubelet mounts.
        let service = "var/run/secrets/kubernetes.io/serviceaccount/namespace";
        let folder = rank(&files).own_file(service, "ml\n").own_file("etc/hostname", "llama-0\n").write();
        let told = pod(&files);
        assert_eq!(told.uid.as_deref(), Some(UID));
        assert_eq!(told.namespace.as_deref(), Some("ml"));
        assert_eq!((told.name.as_deref(), told.named_by), (Some("other"), Some(PodNameSource::Environment)));

        // The runtime knows best.
        let bundle = match runtime {
            ContainerRuntime::Crio => {
                format!("run/containers/storage/overlay-containers/{ID}/userdata/config.json")
            }
            _ => format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"),
        };
        let keys = match runtime {
            ContainerRuntime::Crio => {
                ["io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.container.name"]
            }
            _ => [
                "io.kubernetes.cri.sandbox-name",
                "io.kubernetes.cri.sandbox-namespace",
                "io.kubernetes.cri.container-name",
            ],
        };
        let text = format!(
            r#"{{"ociVersion":"1.1","annotations":{{"{}":"llama-1","{}":"prod","{}":"main"}},"linux":{{}}}}"#,
            keys[0], keys[1], keys[2]
        );
        files.file(&bundle, &text);
        let known = pod(&files);
        assert_eq!((known.namespace.as_deref(), known.name.as_deref()), (Some("prod"), Some("llama-1")));
        assert_eq!(known.named_by, Some(PodNameSource::Runtime));
        let container = only_job(&scan(&files)).ranks[0].container.clone().unwrap();
        assert_eq!((container.runtime, container.name.as_deref()), (runtime, Some("main")));
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn a_containers_links_do_not_lead_out_of_it() {
    let files = HostFiles::new();
    files.file("etc/secret", "host secret");
    let folder = files
        .process(200, 1, "python")
        .python("train.py")
        .torch_on_gpu(0)
        .cgroup("5:cpu:/kubepods/podUID/ID\n")
        .own_file("etc/namespace", "inside")
        .write();
    let root = folder.join("root");
    std::os::unix::fs::symlink(files.root().join("etc/secret"), root.join("etc/hostname")).unwrap();
    std::fs::create_dir_all(root.join("var/run/secrets/kubernetes.io")).unwrap();
    // An absolute link, and one that climbs: both resolve beneath the container's root.
    std::os::unix::fs::symlink("/../../etc", root.join("var/run/secrets/kubernetes.io/serviceaccount"))
        .unwrap();
    let host = scan(&files);
    let pod = only_job(&host).ranks[0].pod.clone().unwrap();
    assert_eq!((pod.name, pod.namespace.as_deref()), (None, Some("inside")));

    // Opening a pipe would wait for a writer for ever.
    std::fs::remove_file(root.join("etc/hostname")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("etc/hostname"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert_eq!(only_job(&scan(&files)).ranks[0].pod.clone().unwrap().name, None);
}

#[test]
fn ranks_started_by_a_python_program() {
    // By environment: the program is the launcher, its own loader is nobody's rank.
    let files = HostFiles::new();
    files.process(100, 1, "python").python("spawn.py").write();
    for rank in 0..3 {
        files
            .process(200 + rank, 100, "python")
            .python("w.py")
            .env(&format!("RANK={rank} WORLD_SIZE=3"))
            .write();
    }
    let host = scan(&files);
    let job = only_job(&host);
    assert_eq!(seats(job), [(Some(0), 200), (Some(1), 201), (Some(2), 202)]);
    assert_eq!((job.launchers[0].kind, job.launchers[0].process.pid), (LauncherKind::Python, 100));

    // By GPUs: children that compute while their parent does not.
    let files = HostFiles::new();
    let torch = ["/v/torch/lib/libtorch_cpu.so"];
    files.process(100, 1, "python").python("spawn.py").maps(&torch).write();
    for rank in 0..2 {
        let child = files.process(200 + rank, 100, "python").python("-c spawn_main").torch_on_gpu(rank);
        child.write();
        files.process(300 + rank, 200 + rank, "python").python("-c spawn_main").torch_on_gpu(rank).write();
    }
    let host = scan(&files);
    let job = only_job(&host);
    assert_eq!(seats(job), [(None, 200), (None, 201)]);
    assert_eq!((helpers(job, 0), helpers(job, 1)), (vec![300], vec![301]));
    assert_eq!(job.launchers[0].process.pid, 100);
    assert!(job.id.starts_with("py-"));
}

#[test]
fn a_lone_process_is_a_job_and_a_plain_python_is_not() {
    let files = HostFiles::new();
    files.process(100, 1, "python").python("notebook.py").maps(&["/v/torch/lib/libtorch_cpu.so"]).write();
    files.process(101, 100, "python").python("notebook.py").maps(&["/v/torch/lib/libtorch_cpu.so"]).write();
    files.process(200, 1, "python").python("-m http.server").write();
    files.process(300, 2, "kworker/0:1").kernel_thread().write();
    // One that draws on a GPU, and does not compute.
    files.process(400, 1, "Xorg").maps(&["/usr/lib/libGLX_nvidia.so.0"]).write();
    let host = scan(&files);
    let job = only_job(&host);
    assert_eq!((job.id.as_str(), seats(job), helpers(job, 0)), ("pid-100", vec![(None, 100)], vec![101]));
    let others: Vec<_> = host.bystanders().iter().map(|b| (b.process.pid, b.why)).collect();
    assert_eq!(others, [(200, "Python")]);
}

#[test]
fn an_orphan_belongs_to_its_rank_and_a_second_seed_does_not() {
    // The job's name is in the variables: a second rank 0 is a helper whose parent is gone.
    let files = HostFiles::new();
    let env = torch_env(0, 2, 29500);
    files.process(100, 1, "torchrun").python("/v/bin/torchrun t.py").write();
    files.process(200, 100, "python").python("t.py").env(&env).torch_on_gpu(0).write();
    files.process(190, 1, "python").python("t.py").env(&env).maps(&["/v/torch/lib/libtorch_cpu.so"]).write();
    let host = scan(&files);
    assert_eq!(seats(only_job(&host)), [(Some(0), 200)]);
    assert_eq!(helpers(only_job(&host), 0), [190]);

    // Nothing but the parent in common: two jobs of one rank each.
    let files = HostFiles::new();
    files.process(100, 1, "bash").runs("-bash").write();
    for pid in [200, 201] {
        files.process(pid, 100, "python").python("t.py").env("RANK=0 WORLD_SIZE=1").write();
    }
    assert_eq!(
        scan(&files).jobs().iter().map(seats).collect::<Vec<_>>(),
        [[(Some(0), 200)], [(Some(0), 201)]]
    );
}

#[test]
fn variables_of_a_pod_do_not_make_its_shell_or_its_launcher_a_rank() {
    // A training operator sets RANK of the node for the whole pod; torchrun sets its own below.
    let files = HostFiles::new();
    let pod = "RANK=1 WORLD_SIZE=2 MASTER_ADDR=llama-master MASTER_PORT=23456";
    files.process(90, 1, "bash").runs("bash -c torchrun").env(pod).write();
    files.process(100, 90, "torchrun").python("/v/bin/torchrun t.py").env(pod).write();
    for local in 0..2 {
        let env = format!(
            "RANK={} WORLD_SIZE=4 LOCAL_RANK={local} MASTER_ADDR=llama-master MASTER_PORT=29400",
            2 + local
        );
        files.process(200 + local, 100, "python").python("t.py").env(&env).write();
    }
    files.process(95, 1, "bash").runs("bash").env(pod).write();
    let host = scan(&files);
    assert_eq!(seats(only_job(&host)), [(Some(2), 200), (Some(3), 201)]);
}

#[test]
fn hostile_processes_are_read_without_harm() {
    let files = HostFiles::new();
    // A name that imitates the fields behind it, a parent loop, an environment of megabytes, arguments without end.
    let mut junk = vec![b'x'; 7 << 20];
    junk.extend_from_slice(b"\0RANK=0\0WORLD_SIZE=1\0");
    files.process(200, 201, "x) R 1 1 1 (\x1b[2J\n").started(5).env("RANK=0 WORLD_SIZE=2").write();
    files.process(201, 200, "y").started(5).env("RANK=1 WORLD_SIZE=2").write();
    files.process(300, 1, "z").raw_env(&junk).write();
    let long = "a ".repeat(100_000);
    files.process(400, 1, "python").python(&long).env("RANK=0 WORLD_SIZE=1 MASTER_ADDR=\u{1b}[31m").write();
    // Files that are missing, cut or of another kind.
    std::fs::remove_file(files.process(500, 1, "gone").write().join("stat")).unwrap();
    std::fs::write(files.process(501, 1, "cut").write().join("stat"), "501 (cut").unwrap();
    let odd = files.process(502, 1, "odd").env("RANK=0 WORLD_SIZE=1").write();
    std::fs::remove_file(odd.join("maps")).unwrap();
    std::fs::create_dir(odd.join("maps")).unwrap();
    std::fs::create_dir(files.proc().join("99999999999999")).unwrap();
    let host = scan(&files);
    let pids: Vec<u32> = host.processes().map(|p| p.id.pid).collect();
    assert_eq!(pids, [1, 200, 201, 300, 400, 502]);
    let rank = |pid| host.jobs().iter().flat_map(|j| &j.ranks).find(|r| r.process.pid == pid);
    assert!(rank(200).is_some() && rank(201).is_some());
    assert!(rank(300).is_none(), "beyond the cap");
    assert!(rank(400).unwrap().cmdline.iter().map(String::len).sum::<usize>() <= 4096);
    assert!(rank(502).unwrap().frameworks.is_empty());
}
