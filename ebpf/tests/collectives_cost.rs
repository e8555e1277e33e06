//! What a probed call costs. Prints numbers and asserts only that every call was recorded: run by hand, on a quiet machine,
//! with `cargo test -p stallscope-ebpf --test collectives_cost -- --ignored --nocapture`.

mod collectives_support;

use std::time::Instant;

use collectives_support::{C, Folder, Live, Program};
use stallscope_ebpf::cost::{Accounting, program_costs};

/// A function of each kind that does nothing, called many times.
const USER: &str = r#"
namespace gloo { struct Context { virtual ~Context() {} int rank = 0, size = 1; }; }
struct Options { gloo::Context *context; void *a, *b, *c, *in[3], *out[3]; size_t elements, size; };
extern "C" {
// Seven arguments, one of them on the stack, and a push first.
__attribute__((noinline)) int ncclAllReduce(const void *, void *, size_t, int, int, void *, void *)
{ asm volatile("push %rbx; pop %rbx"); return 0; }
}
namespace gloo {
__attribute__((noinline)) void allreduce(const Options &) { asm volatile("push %rbx; pop %rbx"); }
}
static double loop(int which)
{
	gloo::Context context;
	Options options = { &context };
	options.elements = 10;
	options.size = 4;
	long long begin = now();
	for (int i = 0; i < 50000; i++)
		if (which)
			gloo::allreduce(options);
		else
			ncclAllReduce(0, 0, 1, 7, 0, (void *)0x5000, 0);
	return (now() - begin) / 50000.0;
}
int main()
{
	gate("ready");
	for (int i = 0; i < 5; i++)
		printf("c %.1f c++ %.1f\n", loop(0), loop(1));
	gate("done");
	for (int i = 0; i < 5; i++)
		printf("c %.1f c++ %.1f\n", loop(0), loop(1));
	gate("done");
}
"#;

#[test]
#[ignore = "a measurement"]
fn nanoseconds_a_call() {
    needs!("g++");
    for flags in ["-fcf-protection=none", "-fcf-protection=full"] {
        let folder = Folder::new();
        let user = folder.build("user", &format!("{C}{USER}"), &[flags, "-fno-ipa-cp"]);
        let mut program = Program::start(&user, &[]);
        let mut bystander = Program::start(&user, &[]);
        program.until("ready");
        bystander.until("ready");
        program.go();
        println!("{flags}, ns a call, without probes: {:?}", program.until("done"));
        let mut live = Live::attach(&[program.pid()]);
        println!("  {:?}", live.found.attached);
        let accounting = Accounting::start().expect("the kernel accounts");
        println!("  recorded: {:?}", live.run(&mut program, "done"));
        for cost in program_costs(&["call_entry_multi", "call_exit_multi"]) {
            println!("  {cost:?}");
        }
        drop(accounting);
        bystander.go();
        println!("  another process with the same file: {:?}", bystander.until("done"));
        let recorded = live.finish();
        println!("  {} calls, lost {:?}", recorded.calls.len(), recorded.losses);
        program.kill();
        bystander.kill();
    }
}

#[test]
#[ignore = "a measurement"]
fn looks_at_a_python_process() {
    needs!();
    let python =
        std::env::var_os("STALLSCOPE_MPI_VENV").map(|venv| std::path::Path::new(&venv).join("bin/python"));
    let Some(python) = python else {
        println!("skipped: STALLSCOPE_MPI_VENV is not set");
        return;
    };
    let code = "import numpy, ssl, sqlite3, asyncio, ctypes, mpi4py.MPI; print('ready', flush=True); input()";
    let mut program = Program::spawn(std::process::Command::new(python).args(["-c", code]));
    program.until("ready");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", program.pid())).expect("readable");
    let begin = Instant::now();
    let mut live = Live::attach(&[program.pid()]);
    let all = begin.elapsed();
    println!("{} mappings, {:?}", maps.lines().count(), live.found.attached);
    println!("loading, attaching and the first look: {all:?}, of which the look {:?}", live.look);
    let begin = Instant::now();
    for _ in 0..1000 {
        live.rescan(&[program.pid()]);
    }
    println!("a later look: {:?}", begin.elapsed() / 1000);
    let begin = Instant::now();
    let recorded = live.finish();
    println!("detaching: {:?}; {:?}", begin.elapsed(), recorded.found.notes);
    program.kill();
}
