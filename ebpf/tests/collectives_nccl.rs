//! The functions of a real NCCL, without a GPU: their calls return errors, and are recorded all the same.
//!
//! Needs root, gcc and STALLSCOPE_NCCL, the path of a libnccl.so.2 (PyPI: nvidia-nccl-cu12); else skipped, with the
//! reason printed.

mod collectives_support;

use collectives_support::{C, Folder, Live, Program, within};
use stallscope_schemas::record::call_flags;

const USER: &str = r#"
int main(int argc, char **argv)
{
	void *lib = dlopen(argv[1], RTLD_NOW);
	if (!lib) { puts(dlerror()); return 1; }
	int (*reduce_all)(const void *, void *, size_t, int, int, void *, void *) = dlsym(lib, "ncclAllReduce");
	int (*gather)(const void *, void *, size_t, int, void *, void *, void *) = dlsym(lib, "ncclAllGatherConfig");
	int (*bcast)(void *, size_t, int, int, void *, void *) = dlsym(lib, "ncclBcast");
	int (*count)(void *, int *) = dlsym(lib, "ncclCommCount"), n, result = 0;
	gate("ready");
	for (int i = 0; i < 100; i++)
		TIMED("ncclAllReduce", result |= reduce_all(0, 0, 10, 7, 0, 0, (void *)0x77));
	if (gather)
		TIMED("ncclAllGatherConfig", gather(0, 0, 10, 7, 0, (void *)0x77, 0));
	TIMED("ncclBcast", bcast(0, 10, 7, 3, 0, (void *)0x77));
	count(0, &n);
	printf("result %d\n", result);
	gate("done");
	return 0;
}
"#;

#[test]
fn nccl() {
    let Ok(library) = std::env::var("STALLSCOPE_NCCL") else {
        println!("skipped: STALLSCOPE_NCCL is not set");
        return;
    };
    needs!("gcc");
    let folder = Folder::new();
    let user = folder.build("user", &format!("{C}{USER}"), &["-ldl"]);
    let mut program = Program::start(&user, &[&library]);
    program.until("ready");
    let mut live = Live::attach(&[program.pid()]);
    println!("{:?} {:?}", live.found.attached, live.found.notes);
    let lines = live.run(&mut program, "done");
    let recorded = live.finish();
    program.end();
    let result = lines.iter().find_map(|line| line.strip_prefix("result ")).expect("a line");
    let result: i64 = result.parse().expect("a number");
    assert_ne!(result, 0, "there is no communicator");
    let reduced = recorded.of("ncclAllReduce");
    within(&lines, &reduced, "ncclAllReduce");
    assert_eq!(reduced.len(), 100);
    for call in reduced {
        assert_eq!((call.bytes, call.reduction, call.stream, call.result), (40, "sum", 0x77, result));
        assert_eq!(call.flags, call_flags::ASYNC | call_flags::RETURNED);
    }
    // It calls ncclBroadcast, which is counted for it.
    let [bcast] = recorded.of("ncclBcast")[..] else { panic!("{:?}", recorded.calls) };
    assert_eq!((bcast.bytes, bcast.peer, bcast.stream, bcast.sequence), (40, Some(3), 0x77, Some(101)));
}
