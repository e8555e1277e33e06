//! CUDA's runtime, injection, full queues, forks, visible devices, several subscribers.

mod common;

use std::process::Command;

use common::{Lab, Outcome, here};
use stallscope_cupti_double::folder::Version;
use stallscope_cupti_double::truth::{Line, Why};

fn inject(settings: &str) -> Outcome {
    let lab = Lab::new(Version::V12_8);
    let source = here().join("tests/c/runtime.c");
    let program = lab.compile(&source);
    let library = lab.path("injected.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-w", "-DINJECTED", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    let mut command = lab.command(&program, settings, "log");
    command.arg("libcudart.so.12").env("CUDA_INJECTION64_PATH", &library);
    lab.finish(&mut command, "log")
}

fn calls(outcome: &Outcome, kind: u32, cbid: u32) -> Vec<u32> {
    let calls = outcome.lines("call").into_iter().map(|l| l.split(' ').map(|n| n.parse().unwrap()).collect());
    let numbers = calls.filter(|n: &Vec<u32>| n[0] == kind && n[1] == cbid).map(|n| n[2]);
    numbers.collect()
}

#[test]
fn calls_of_the_runtime_are_recorded_and_hide_the_drivers() {
    let outcome = inject("");
    assert_eq!(outcome.text.lines().filter(|l| *l == "injected").count(), 1);
    assert_eq!(outcome.lines("code"), ["0 0"]);
    assert_eq!(outcome.lines("not_ready"), ["600"]);
    assert_eq!(outcome.lines("bad"), ["1 1 0"], "an error is told once");
    let launches = calls(&outcome, 5, 211);
    assert_eq!(launches.len(), 6);
    assert_eq!(calls(&outcome, 4, 307), [0; 0]);
    let kernels: Vec<u32> = outcome.lines("kernel").iter().map(|k| k.parse().unwrap()).collect();
    assert_eq!(kernels, launches, "a kernel has the number of its launch");
}

#[test]
fn calls_inside_the_runtimes_share_their_number() {
    let outcome = inject("cudart.nested=1");
    let launches = calls(&outcome, 5, 211);
    assert_eq!(launches.len(), 6);
    assert_eq!(calls(&outcome, 4, 307), launches);
}

#[test]
fn a_child_that_was_forked_has_no_cuda() {
    let outcome = inject("");
    assert_eq!(outcome.lines("child"), ["3"]);
    let ends = outcome.truth.iter().filter(|l| matches!(l, Line::End(_))).count();
    assert_eq!(ends, 1, "the child ends nothing");
}

#[test]
fn a_launch_waits_while_the_queue_is_full() {
    let outcome = inject("queue.depth=2");
    let is_full = |l: &&Line| matches!(l, Line::Block(b) if b.why == Why::QueueFull);
    let waits = outcome.truth.iter().filter(is_full).count();
    // Six kernels of a millisecond, two at a time; less if the host was slow.
    assert!((1..=4).contains(&waits), "{waits}");
    let full = (6 << 16).to_string();
    assert_eq!(outcome.lines("overhead").iter().filter(|o| **o == full).count(), waits);
    // Whoever waited came on when the kernel two before it had ended.
    let ends: Vec<_> = outcome.ops().iter().map(|o| o.end_ns.unwrap()).collect();
    let full_until = outcome.truth.iter().filter(is_full).map(|l| match l {
        Line::Block(b) => b.until_ns,
        _ => 0,
    });
    assert!(full_until.into_iter().all(|until_ns| ends.contains(&until_ns)));
}

#[test]
fn a_kernel_that_hangs_is_in_the_log_without_an_end() {
    let lab = Lab::new(Version::V12_8);
    let source = "import ctypes, os, time\n\
        cuda = ctypes.CDLL('libcuda.so.1')\n\
        h = [ctypes.c_void_p() for _ in range(4)]\n\
        cuda.cuInit(0)\n\
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(h[0]), 0)\n\
        cuda.cuCtxSetCurrent(h[0])\n\
        cuda.cuModuleLoadData(ctypes.byref(h[1]), b'ptx')\n\
        cuda.cuModuleGetFunction(ctypes.byref(h[2]), h[1], b'gemm')\n\
        for _ in range(3):\n\
        \x20   cuda.cuLaunchKernel(h[2], 1, 1, 1, 1, 1, 1, 0, None, None, None)\n\
        time.sleep(0.01)\n\
        print('query', cuda.cuStreamQuery(None))\n";
    let mut command = lab.command("python3".as_ref(), "kernel.hang.gemm=2; kernel.default_ns=1000", "log");
    let outcome = lab.finish(command.args(["-c", source]), "log");
    assert_eq!(outcome.lines("query"), ["600"]);
    let mut ops: Vec<_> =
        outcome.ops().iter().map(|o| (o.id, o.start_ns.is_some(), o.end_ns.is_some())).collect();
    ops.sort_unstable();
    assert_eq!(ops, [(1, true, true), (2, true, false), (3, false, false)], "ended, hangs, waits behind it");
    assert!(outcome.truth.iter().any(|l| matches!(l, Line::End(e) if (e.ops, e.unfinished) == (3, 2))));
}

#[test]
fn visible_devices_are_numbered_anew_and_keep_their_uuids() {
    let lab = Lab::new(Version::V12_8);
    let source = "import ctypes\n\
        cuda = ctypes.CDLL('libcuda.so.1')\n\
        n, uuid = ctypes.c_int(), (ctypes.c_ubyte * 16)()\n\
        print('init', cuda.cuInit(0))\n\
        cuda.cuDeviceGetCount(ctypes.byref(n))\n\
        for i in range(n.value):\n\
        \x20   cuda.cuDeviceGetUuid_v2(uuid, i)\n\
        \x20   print('uuid', bytes(uuid).hex()[-12:])\n";
    for (visible, uuids, code) in [
        ("2,0", &["000000000002", "000000000000"][..], "0"),
        ("MIG-d0b1e500-0000-4000-8000-010100000001", &["010100000001"], "0"),
        ("7", &[], "100"),
    ] {
        let mut command = lab.command("python3".as_ref(), "gpus=3; gpu.1.mig=2", "log");
        command.args(["-c", source]).env("CUDA_VISIBLE_DEVICES", visible);
        let outcome = lab.finish(&mut command, "log");
        assert_eq!(outcome.lines("uuid"), uuids, "{visible}");
        assert_eq!(outcome.lines("init"), [code], "{visible}");
    }
}

#[test]
fn subscribers_have_buffers_of_their_own_from_13_2_on() {
    let version = Version::V13_3;
    let outcome = Lab::new(version).run("second.c", &[version.cupti()], "");
    assert_eq!(outcome.lines("subscribe"), ["0 0 0"]);
    assert_eq!(outcome.lines("both"), ["1 0 1 1"], "the second also asked for launches");
    assert_eq!(outcome.lines("while"), ["0"]);
    assert_eq!(outcome.lines("after"), ["0"]);
    assert_eq!(outcome.lines("finalized"), ["1"]);
    assert_eq!(outcome.lines("info").len(), 0);
    // 13.0 has the function, and one subscriber.
    let version = Version::V13_0;
    let program = "import ctypes, sys; ctypes.CDLL('libcuda.so.1').cuInit(0); \
        cupti = ctypes.CDLL(sys.argv[1]); h = ctypes.c_void_p(); \
        print('subscribe', *(cupti.cuptiSubscribe_v2(ctypes.byref(h), None, None, None) for _ in range(2)))";
    let lab = Lab::new(version);
    let mut command = lab.command("python3".as_ref(), "", "log");
    let outcome = lab.finish(command.args(["-c", program, version.cupti()]), "log");
    assert_eq!(outcome.lines("subscribe"), ["0 39"]);
}
