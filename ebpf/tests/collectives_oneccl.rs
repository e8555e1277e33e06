//! The calls of a real oneCCL, two ranks over loopback, through its functions for C++ and those for C.
//!
//! Needs root, g++, libfabric (Debian: libfabric1) and STALLSCOPE_ONECCL, a folder with `include` and `lib` of PyPI's
//! oneccl-cpu and oneccl-cpu-devel, with libccl.so.2 and libccl_legacy_cpu.so of its oneccl; else skipped, with the
//! reason printed.

mod collectives_support;

use std::path::Path;
use std::process::Command;

use collectives_support::{Folder, Live, Program, within};
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};

const RANK: &str = r#"
#include <oneapi/ccl.hpp>
#include <oneapi/ccl.h>
#include <string>
#include <vector>
#include <stdlib.h>
#include <unistd.h>
using namespace ccl;
// One rank writes, the other reads.
static void share(int rank, std::string file, void *data, size_t size)
{
	if (rank == 0) {
		FILE *out = fopen((file + "-").c_str(), "wb");
		fwrite(data, 1, size, out);
		fclose(out);
		rename((file + "-").c_str(), file.c_str());
	} else {
		FILE *in;
		while (!(in = fopen(file.c_str(), "rb")))
			usleep(1000);
		if (fread(data, 1, size, in) != size)
			exit(1);
		fclose(in);
	}
}
int main(int argc, char **argv)
{
	int rank = atoi(argv[1]);
	std::string folder = argv[2];
	gate("ready");
	ccl::init();
	kvs::address_type address;
	shared_ptr_class<kvs> store;
	if (rank == 0)
		address = (store = create_main_kvs())->get_address();
	share(rank, folder + "/address", address.data(), address.size());
	if (rank)
		store = create_kvs(address);
	auto comm = create_communicator(2, rank, store);
	std::vector<float> x(1000, 1), y(2000);
	// An event that goes is waited for again.
	std::vector<event> kept;
	for (int i = 0; i < 20; i++) {
		event done;
		TIMED("ccl::v1::allreduce", done = allreduce(x.data(), y.data(), x.size(), datatype::float32, reduction::max, comm));
		TIMED("ccl::host_event_impl::wait", done.wait());
		kept.push_back(std::move(done));
	}
	for (int i = 0; i < 4; i++)
		TIMED("ccl::v1::broadcast", broadcast(x.data(), 10, datatype::int64, 1, comm).wait());
	for (int i = 0; i < 4; i++)
		TIMED("ccl::v1::reduce", reduce(x.data(), y.data(), 20, datatype::float32, reduction::sum, 1, comm).wait());
	for (int i = 0; i < 2; i++)
		TIMED("ccl::v1::reduce_scatter", reduce_scatter(x.data(), y.data(), 7, datatype::int16, reduction::sum, comm).wait());
	TIMED("ccl_comm::barrier", barrier(comm));

	onecclUniqueId id = {};
	onecclComm_t c = 0;
	if (rank == 0)
		onecclGetUniqueId(&id);
	share(rank, folder + "/id", &id, sizeof(id));
	int result = onecclCommInitRank(&c, 2, id, rank);
	for (int i = 0; i < 10; i++)
		TIMED("onecclAllReduce", result |= onecclAllReduce(x.data(), y.data(), 1000, onecclFloat32, onecclMax, c, 0));
	TIMED("onecclAllGather", result |= onecclAllGather(x.data(), y.data(), 7, onecclInt32, c, 0));
	TIMED("onecclBroadcast", result |= onecclBroadcast(x.data(), x.data(), 10, onecclInt8, 1, c, 0));
	printf("result %d\n", result);
	gate("done");
	// What its threads do at the end is of no interest.
	fflush(stdout);
	_exit(0);
}
"#;

#[test]
fn oneccl() {
    let Ok(oneccl) = std::env::var("STALLSCOPE_ONECCL") else {
        println!("skipped: STALLSCOPE_ONECCL is not set");
        return;
    };
    needs!("g++");
    let folder = Folder::new();
    let lib = Path::new(&oneccl).join("lib");
    let (include, search) = (format!("-I{oneccl}/include"), format!("-L{}", lib.display()));
    // The comment makes it C++ to the builder. The functions for C are weak: they do not ask for their library.
    let source = format!("// namespace\n{}{RANK}", collectives_support::C);
    let libraries = ["-Wl,--no-as-needed", "-l:libccl.so.1", "-l:libccl.so.2"];
    let program = folder.build("rank", &source, &[&[include.as_str(), &search], &libraries[..]].concat());
    let mut ranks = [0, 1].map(|rank: u32| {
        let mut command = Command::new(&program);
        command.arg(rank.to_string()).arg(folder.path("")).env("LD_LIBRARY_PATH", &lib);
        // It spins: where CPUs are scarce, only yielding lets it get anywhere.
        let settings = [("CCL_ATL_TRANSPORT", "ofi"), ("FI_PROVIDER", "tcp"), ("CCL_YIELD", "sched_yield")];
        command.envs(settings);
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
    let async_call = call_flags::ASYNC;
    for (rank, lines) in [1u32, 0].into_iter().zip(&lines) {
        assert!(lines.contains(&"result 0".to_owned()), "{lines:?}");
        let pid = pids[rank as usize];
        // The functions for C call those for C++.
        let of = |name: &str| -> Vec<_> {
            let own = |flags: u64| flags & call_flags::NESTED == 0;
            let calls = recorded.calls.iter().filter(|(of, c)| *of == pid && c.name == name && own(c.flags));
            calls.map(|(_, call)| call).collect()
        };
        for (name, calls, bytes, reduction, peer) in [
            ("ccl::v1::allreduce", 20, 4000, "max", None),
            ("ccl::v1::broadcast", 4, 80, "", Some(1)),
            ("ccl::v1::reduce", 4, 80, "sum", Some(1)),
            ("ccl::v1::reduce_scatter", 2, 28, "sum", None),
            ("ccl_comm::barrier", 1, 0, "", None),
            ("onecclAllReduce", 10, 4000, "max", None),
            ("onecclAllGather", 1, 28, "", None),
            ("onecclBroadcast", 1, 10, "", Some(1)),
        ] {
            let all = of(name);
            assert_eq!(all.len(), calls, "{name}");
            within(lines, &all, name);
            for call in all {
                assert_eq!((call.bytes, call.reduction, call.peer), (bytes, reduction, peer), "{call:?}");
                assert_eq!((call.rank, call.group_size, call.left), (Some(rank), 2, false), "{call:?}");
                assert_eq!((call.library, call.flags & async_call), (CollectiveLibrary::OneCcl, async_call));
            }
        }
        let waits = of("ccl::host_event_impl::wait");
        assert!(waits.len() >= 30, "{} waits", waits.len());
        assert!(waits.iter().all(|call| call.operation == CollectiveOp::Wait), "{waits:?}");
        within(lines, &waits[..20], "ccl::host_event_impl::wait");
    }
    ranks.into_iter().for_each(Program::end);
}
