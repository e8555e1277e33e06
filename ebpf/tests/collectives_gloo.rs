//! The calls of a real Gloo, two ranks over loopback: how many, how much, with whom.
//!
//! Needs root, g++ and STALLSCOPE_GLOO, a folder with what Debian's libgloo-dev and libgloo0 (and libhiredis0.14,
//! libibverbs1, libnl-3-200, libnl-route-3-200, which it needs) unpack to; else skipped, with the reason printed.

mod collectives_support;

use std::path::Path;
use std::process::Command;

use collectives_support::{Folder, Live, Program, within};
use stallscope_schemas::record::{CollectiveLibrary, call_flags};

const RANK: &str = r#"
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/math.h>
#include <gloo/reduce.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>
using namespace gloo;
int main(int argc, char **argv)
{
	int rank = atoi(argv[1]), caught = 0;
	transport::tcp::attr attr("127.0.0.1");
	auto device = transport::tcp::CreateDevice(attr);
	rendezvous::FileStore store(argv[2]);
	auto context = std::make_shared<rendezvous::Context>(rank, 2);
	context->connectFullMesh(store, device);
	gate("ready");
	std::vector<float> x(1000, 1);
	std::vector<int> in(7), out(14);
	void (*add)(void *, const void *, const void *, size_t) = &sum<float>;
	for (int i = 0; i < 100; i++) {
		AllreduceOptions o(context);
		o.setInput(x.data(), x.size());
		o.setOutput(x.data(), x.size());
		o.setReduceFunction(add);
		TIMED("gloo::allreduce", allreduce(o));
	}
	for (int i = 0; i < 10; i++) {
		BroadcastOptions o(context);
		o.setOutput(x.data(), 10);
		o.setRoot(1);
		TIMED("gloo::broadcast", broadcast(o));
	}
	for (int i = 0; i < 10; i++) {
		ReduceOptions o(context);
		o.setInput(x.data(), 20);
		o.setOutput(x.data(), 20);
		o.setReduceFunction(add);
		o.setRoot(1);
		TIMED("gloo::reduce", reduce(o));
	}
	for (int i = 0; i < 5; i++) {
		AllgatherOptions o(context);
		o.setInput(in.data(), 7);
		o.setOutput(out.data(), 14);
		TIMED("gloo::allgather", allgather(o));
	}
	BarrierOptions o(context);
	TIMED("gloo::barrier", barrier(o));
	// Alone: an exception ends it.
	if (rank == 1) {
		AllreduceOptions o(context);
		o.setInput(x.data(), x.size());
		o.setOutput(x.data(), x.size());
		o.setReduceFunction(add);
		o.setTimeout(std::chrono::milliseconds(50));
		try { allreduce(o); } catch (std::exception &) { caught++; }
	}
	printf("caught %d\n", caught);
	gate("done");
}
"#;

#[test]
fn gloo() {
    let Ok(gloo) = std::env::var("STALLSCOPE_GLOO") else {
        println!("skipped: STALLSCOPE_GLOO is not set");
        return;
    };
    needs!("g++");
    let folder = Folder::new();
    let lib = Path::new(&gloo).join("usr/lib");
    let include = format!("-I{gloo}/usr/include");
    let library = lib.join("libgloo.so.0");
    let library = library.to_str().expect("a path");
    // The comment makes it C++ to the builder.
    let source = format!("// namespace\n{}{RANK}", collectives_support::C);
    let program = folder.build("rank", &source, &[&include, library, "-Wl,--allow-shlib-undefined"]);
    std::fs::create_dir(folder.path("store")).expect("made");
    let mut ranks = [0, 1].map(|rank: u32| {
        let paths = format!("{}:{}/x86_64-linux-gnu", lib.display(), lib.display());
        let mut command = Command::new(&program);
        command.arg(rank.to_string()).arg(folder.path("store")).env("LD_LIBRARY_PATH", paths);
        Program::spawn(&mut command)
    });
    ranks.iter_mut().for_each(|rank| drop(rank.until("ready")));
    let pids = ranks.each_ref().map(Program::pid);
    let mut live = Live::attach(&pids);
    println!("{:?} {:?}", live.found.attached, live.found.notes);
    let [first, second] = &mut ranks;
    first.go();
    let lines = [live.run(second, "done"), first.until("done")];
    let recorded = live.finish();
    for (rank, lines) in [1u32, 0].into_iter().zip(&lines) {
        assert!(lines.contains(&format!("caught {rank}")), "{lines:?}");
        let pid = pids[rank as usize];
        let of = |name: &str| -> Vec<_> {
            let calls = recorded.calls.iter().filter(|(of, call)| *of == pid && call.name == name);
            calls.map(|(_, call)| call).collect()
        };
        let mut reduced = of("gloo::allreduce");
        if rank == 1 {
            let last = reduced.pop().expect("the one that threw");
            assert_eq!((last.left, last.flags), (true, call_flags::OPEN));
        }
        within(lines, &reduced, "gloo::allreduce");
        for call in &reduced {
            assert_eq!((call.elements, call.bytes), (1000, 4000), "{call:?}");
            assert_eq!((call.rank, call.group_size, call.left), (Some(rank), 2, false));
            assert_eq!((call.library, call.flags), (CollectiveLibrary::Gloo, 0));
        }
        for (name, calls, bytes, peer) in [
            ("gloo::broadcast", 10, 40, Some(1)),
            ("gloo::reduce", 10, 80, Some(1)),
            ("gloo::allgather", 5, 28, None),
            ("gloo::barrier", 1, 0, None),
        ] {
            let all = of(name);
            assert_eq!(all.len(), calls);
            within(lines, &all, name);
            assert!(all.iter().all(|call| call.bytes == bytes && call.peer == peer), "{all:?}");
        }
    }
    ranks.into_iter().for_each(Program::end);
}
