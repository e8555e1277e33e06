//! Calls of stand-ins that export the names of collective libraries, against what the programs themselves say.
//!
//! Needs root, gcc and g++; what is not there is skipped, with the reason printed.

mod collectives_support;

use std::process::Command;

use collectives_support::{C, Folder, Live, Program, within};
use stallscope_ebpf::Kernel;
use stallscope_schemas::loss::LossCounter;
use stallscope_schemas::record::{CollectiveLibrary, CollectiveOp, call_flags};

/// A NCCL of which each call takes two milliseconds.
const NCCL: &str = r#"
#include <time.h>
#include <stddef.h>
typedef struct { char bytes[128]; } ncclUniqueId;
static void nap(void) { struct timespec t = { 0, 2000000 }; nanosleep(&t, 0); }
int ncclCommInitRank(void **comm, int n, ncclUniqueId id, int rank) { nap(); *comm = (void *)0x5000; return 0; }
int pncclAllReduce(const void *s, void *r, size_t n, int type, int op, void *comm, void *stream) { nap(); return 0; }
int ncclAllReduce(const void *, void *, size_t, int, int, void *, void *) __attribute__((weak, alias("pncclAllReduce")));
int ncclReduce(const void *s, void *r, size_t n, int type, int op, int root, void *comm, void *stream) { nap(); return 5; }
int ncclAllGatherConfig(const void *s, void *r, size_t n, int type, void *comm, void *stream, void *config) { nap(); return 0; }
int ncclSend(const void *s, size_t n, int type, int peer, void *comm, void *stream) { nap(); return 0; }
int ncclGroupStart(void) { return 0; }
int ncclGroupEnd(void) { nap(); return 0; }
"#;

const NCCL_USER: &str = r#"
typedef struct { char bytes[128]; } ncclUniqueId;
int main(int argc, char **argv)
{
	gate("ready");
	void *lib = dlopen(argv[1], RTLD_NOW);
	if (!lib) { puts(dlerror()); return 1; }
	int (*init)(void **, int, ncclUniqueId, int) = dlsym(lib, "ncclCommInitRank");
	int (*reduce_all)(const void *, void *, size_t, int, int, void *, void *) = dlsym(lib, "ncclAllReduce");
	int (*reduce)(const void *, void *, size_t, int, int, int, void *, void *) = dlsym(lib, "ncclReduce");
	int (*gather)(const void *, void *, size_t, int, void *, void *, void *) = dlsym(lib, "ncclAllGatherConfig");
	int (*send)(const void *, size_t, int, int, void *, void *) = dlsym(lib, "ncclSend");
	int (*start)(void) = dlsym(lib, "ncclGroupStart"), (*end)(void) = dlsym(lib, "ncclGroupEnd");
	gate("loaded");
	ncclUniqueId id;
	void *comm, *stream = (void *)0x77;
	memset(&id, 0, sizeof(id));
	strcpy(id.bytes, "\x11\x22");
	TIMED("ncclCommInitRank", init(&comm, 4, id, 3));
	for (int i = 0; i < 50; i++)
		TIMED("ncclAllReduce", reduce_all(0, 0, 1000 + i, 7, 0, comm, stream));
	TIMED("ncclReduce", reduce(0, 0, 10, 8, 2, 1, comm, stream));
	start();
	TIMED("ncclSend", send(0, 6, 9, 2, comm, stream));
	TIMED("ncclGroupEnd", end());
	TIMED("ncclAllGatherConfig", gather(0, 0, 3, 4, comm, stream, 0));
	gate("done");
	return 0;
}
"#;

fn nccl(flags: &[&str], kernel: &Kernel) {
    let folder = Folder::new();
    let library = folder.build("libnccl.so.2", NCCL, flags);
    let user = folder.build("user", &format!("{C}{NCCL_USER}"), &["-ldl"]);
    let mut program = Program::start(&user, &[library.to_str().expect("a path")]);
    program.until("ready");
    let pid = program.pid();
    let mut live = Live::attach_as(kernel, &[pid]);
    assert!(live.found.attached.is_empty(), "{:?}", live.found);
    live.run(&mut program, "loaded");
    // Opened after the recording began.
    live.rescan(&[pid]);
    let [attached] = &live.found.attached[..] else { panic!("{:?}", live.found) };
    assert_eq!((attached.functions, attached.path.as_str()), (7, library.to_str().expect("a path")));
    let lines = live.run(&mut program, "done");
    let recorded = live.finish();
    program.end();

    let all = recorded.of("ncclAllReduce");
    within(&lines, &all, "ncclAllReduce");
    for (n, call) in (0u64..).zip(&all) {
        assert!(call.duration_ns >= 2_000_000, "{call:?}");
        assert_eq!((call.elements, call.bytes, call.datatype), (1000 + n, (1000 + n) * 4, "float32"));
        assert_eq!((call.operation, call.reduction), (CollectiveOp::AllReduce, "sum"));
        assert_eq!((call.group.as_str(), call.group_size, call.rank), ("nccl:0000000000002211", 4, Some(3)));
        assert_eq!((call.sequence, call.stream, call.result), (Some(n), 0x77, 0));
        assert_eq!(
            (call.flags, call.library),
            (call_flags::ASYNC | call_flags::RETURNED, CollectiveLibrary::Nccl)
        );
        assert_ne!(call.stack, 0, "longer than the threshold");
    }
    let [reduce] = recorded.of("ncclReduce")[..] else { panic!("one reduce") };
    // Communicator and stream are on the stack.
    assert_eq!((reduce.bytes, reduce.peer, reduce.reduction, reduce.stream), (80, Some(1), "max", 0x77));
    assert_eq!((reduce.rank, reduce.result, reduce.sequence), (Some(3), 5, Some(50)));
    let [send] = recorded.of("ncclSend")[..] else { panic!("one send") };
    assert_eq!((send.bytes, send.peer, send.sequence), (12, Some(2), None));
    assert_ne!(send.flags & call_flags::NESTED, 0, "part of a group");
    let [end] = recorded.of("ncclGroupEnd")[..] else { panic!("one end of a group") };
    assert_eq!(end.flags, call_flags::RETURNED);
    let [gather] = recorded.of("ncclAllGatherConfig")[..] else { panic!("one gather") };
    assert_eq!((gather.bytes, gather.flags & call_flags::NESTED, gather.sequence), (24, 0, Some(51)));
    for name in ["ncclCommInitRank", "ncclReduce", "ncclSend", "ncclGroupEnd", "ncclAllGatherConfig"] {
        within(&lines, &recorded.of(name), name);
    }
    assert_eq!(recorded.calls.len(), 56, "{:?}", recorded.calls);
    // Others may be attaching meanwhile, which makes the kernel skip a switch now and then: those are no calls.
    let lost: Vec<_> = recorded.losses.iter().filter(|lost| *lost.0 != LossCounter::ProbeMissed).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn nccl_opened_after_the_attach_is_recorded_with_all_that_its_arguments_say() {
    needs!("gcc");
    nccl(&["-fcf-protection=none"], &Kernel::detect());
}

#[test]
fn entries_that_begin_with_a_landing_pad_are_recorded_the_same() {
    needs!("gcc");
    nccl(&["-fcf-protection=full"], &Kernel::detect());
}

#[test]
fn kernels_without_uprobe_multi_take_one_probe_for_each_function() {
    needs!("gcc");
    nccl(&[], &Kernel { version: (5, 15), ..Kernel::detect() });
}

#[test]
fn kernels_on_which_return_probes_are_dangerous_have_returns_probed_instead() {
    needs!("gcc");
    nccl(&[], &Kernel { version: (6, 12), ..Kernel::detect() });
}

#[test]
fn a_library_replaced_on_disk_or_stripped_is_recorded_as_it_is_mapped() {
    needs!("gcc", "strip");
    let folder = Folder::new();
    let library = folder.build("librccl.so.1", NCCL, &["-s"]);
    let user = folder.build("user", &format!("{C}{NCCL_USER}"), &["-ldl"]);
    let mut program = Program::start(&user, &[library.to_str().expect("a path")]);
    program.until("ready");
    program.go();
    program.until("loaded");
    std::fs::remove_file(&library).expect("removed");
    std::fs::write(&library, "something else").expect("replaced");
    let mut live = Live::attach(&[program.pid()]);
    live.run(&mut program, "done");
    let recorded = live.finish();
    program.end();
    let all = recorded.of("ncclAllReduce");
    assert_eq!(all.len(), 50, "{:?}", recorded.found);
    assert!(all.iter().all(|call| call.library == CollectiveLibrary::Rccl && call.rank == Some(3)));
    assert!(recorded.found.attached[0].path.ends_with("librccl.so.1 (deleted)"), "{:?}", recorded.found);
}

/// An MPI with Open MPI's handles and Fortran's numbers.
const MPI: &str = r#"
#include <time.h>
static void nap(void) { struct timespec t = { 0, 1000000 }; nanosleep(&t, 0); }
char ompi_mpi_double[512], ompi_mpi_op_sum[512], ompi_mpi_comm_world[512], derived[512];
int PMPI_Allreduce(const void *s, void *r, int n, void *type, void *op, void *comm) { nap(); return 0; }
int MPI_Allreduce(const void *s, void *r, int n, void *type, void *op, void *comm) __attribute__((weak, alias("PMPI_Allreduce")));
int MPI_Allreduce_c(const void *s, void *r, long n, void *type, void *op, void *comm) { nap(); return 0; }
int MPI_Comm_rank(void *comm, int *rank) { *rank = comm == derived ? 0 : 1; return 0; }
int MPI_Comm_size(void *comm, int *size) { *size = comm == derived ? 1 : 2; return 0; }
int MPI_Comm_split(void *comm, int color, int key, void **made) { *made = derived; return 0; }
int MPI_Alltoall(const void *s, int n, void *st, void *r, int rn, void *rt, void *comm) { nap(); return 0; }
int MPI_Wait(void *request, void *status) { nap(); return 0; }
#define FORTRAN(name) void name(void *s, void *r, int *n, int *type, int *op, int *comm, int *error) \
{ *error = PMPI_Allreduce(s, r, *n, ompi_mpi_double, ompi_mpi_op_sum, ompi_mpi_comm_world); }
FORTRAN(mpi_allreduce_) FORTRAN(mpi_allreduce__) FORTRAN(mpi_allreduce) FORTRAN(MPI_ALLREDUCE) FORTRAN(mpi_allreduce_f08_)
void mpi_gather_(void *s, int *n, int *type, void *r, int *rn, int *rt, int *root, int *comm, int *error) { nap(); }
"#;

const MPI_USER: &str = r#"
extern char ompi_mpi_double[], ompi_mpi_op_sum[], ompi_mpi_comm_world[];
int MPI_Allreduce(const void *, void *, int, void *, void *, void *);
int MPI_Allreduce_c(const void *, void *, long, void *, void *, void *);
int MPI_Alltoall(const void *, int, void *, void *, int, void *, void *);
int MPI_Comm_rank(void *, int *), MPI_Comm_size(void *, int *), MPI_Comm_split(void *, int, int, void **), MPI_Wait(void *, void *);
typedef void fortran(void *, void *, int *, int *, int *, int *, int *);
fortran mpi_allreduce_, mpi_allreduce__, mpi_allreduce, MPI_ALLREDUCE, mpi_allreduce_f08_;
void mpi_gather_(void *, int *, int *, void *, int *, int *, int *, int *, int *);
static void *other(void *comm)
{
	for (int i = 0; i < 20; i++)
		MPI_Allreduce(0, 0, 7, ompi_mpi_double, ompi_mpi_op_sum, comm);
	return 0;
}
int main(void)
{
	gate("ready");
	int rank, size, n = 5, type = 17, op = 3, comm = 0, root = 1, error;
	void *derived;
	pthread_t thread;
	MPI_Comm_rank(ompi_mpi_comm_world, &rank);
	MPI_Comm_size(ompi_mpi_comm_world, &size);
	for (int i = 0; i < 10; i++)
		TIMED("MPI_Allreduce", MPI_Allreduce(0, 0, 100, ompi_mpi_double, ompi_mpi_op_sum, ompi_mpi_comm_world));
	TIMED("MPI_Allreduce_c", MPI_Allreduce_c(0, 0, 1L << 33, ompi_mpi_double, ompi_mpi_op_sum, ompi_mpi_comm_world));
	TIMED("MPI_Alltoall", MPI_Alltoall(0, 3, ompi_mpi_double, 0, 3, ompi_mpi_double, ompi_mpi_comm_world));
	MPI_Wait(0, 0);
	fortran *names[] = { mpi_allreduce_, mpi_allreduce__, mpi_allreduce, MPI_ALLREDUCE, mpi_allreduce_f08_ };
	for (int i = 0; i < 5; i++)
		TIMED("fortran", names[i](0, 0, &n, &type, &op, &comm, &error));
	mpi_gather_(0, &n, &type, 0, &n, &type, &root, &comm, &error);
	MPI_Comm_split(ompi_mpi_comm_world, 0, 0, &derived);
	MPI_Comm_rank(derived, &rank);
	MPI_Comm_size(derived, &size);
	pthread_create(&thread, 0, other, derived);
	pthread_join(thread, 0);
	gate("done");
	return 0;
}
"#;

#[test]
fn mpi_is_recorded_under_its_c_and_its_fortran_names() {
    needs!("gcc");
    let folder = Folder::new();
    folder.build("libmpi.so", MPI, &[]);
    // Not position-independent: the addresses of the handles are those of copies in the program.
    for flags in [["-no-pie", "-fno-pic"], ["-pie", "-fPIC"]] {
        let user = folder.build(
            "user",
            &format!("{C}{MPI_USER}"),
            &[&["-L.", "-lmpi", "-Wl,-rpath,."], &flags[..]].concat(),
        );
        let mut program = Program::spawn(Command::new(&user).current_dir(folder.path("")));
        program.until("ready");
        let mut live = Live::attach(&[program.pid()]);
        let lines = live.run(&mut program, "done");
        let recorded = live.finish();
        program.end();

        let calls = recorded.of("MPI_Allreduce");
        let (world, rest): (Vec<_>, Vec<_>) = calls.into_iter().partition(|c| c.group == "MPI_COMM_WORLD");
        let (plain, inner): (Vec<_>, Vec<_>) =
            world.into_iter().partition(|c| c.flags & call_flags::NESTED == 0);
        within(&lines, &plain, "MPI_Allreduce");
        for (n, call) in (0u64..).zip(&plain) {
            assert_eq!((call.bytes, call.datatype, call.reduction), (800, "MPI_DOUBLE", "sum"));
            assert_eq!((call.group_size, call.rank, call.sequence), (2, Some(1), Some(n)));
        }
        assert_eq!((inner.len(), inner.iter().filter(|c| c.sequence.is_none()).count()), (5, 5));
        let large = recorded.of("MPI_Allreduce_c");
        assert_eq!((large[0].elements, large[0].bytes), (1 << 33, 8 << 33));
        assert_eq!(recorded.of("MPI_Alltoall")[0].bytes, 48, "a part for each of two ranks");
        assert_eq!(recorded.of("MPI_Wait")[0].operation, CollectiveOp::Wait);
        let names =
            ["mpi_allreduce_", "mpi_allreduce__", "mpi_allreduce", "MPI_ALLREDUCE", "mpi_allreduce_f08_"];
        for (n, name) in (0u64..).zip(names) {
            let [call] = recorded.of(name)[..] else { panic!("{name}") };
            assert_eq!((call.bytes, call.datatype, call.reduction), (40, "MPI_DOUBLE_PRECISION", "sum"));
            assert_eq!(
                (call.group.as_str(), call.rank, call.sequence),
                ("MPI_COMM_WORLD/fortran", Some(1), Some(n))
            );
            assert_eq!(call.flags, 0, "the result of a Fortran call is behind a pointer");
        }
        // Root and communicator are on the stack, and pointers.
        let [gather] = recorded.of("mpi_gather_")[..] else { panic!("one gather") };
        assert_eq!(
            (gather.peer, gather.group.as_str(), gather.bytes),
            (Some(1), "MPI_COMM_WORLD/fortran", 40)
        );
        assert_eq!(rest.len(), 20);
        for (n, call) in (0u64..).zip(&rest) {
            assert!(call.group.starts_with("mpi@"), "{call:?}");
            assert_eq!((call.bytes, call.group_size, call.rank, call.sequence), (56, 1, Some(0), Some(n)));
        }
        // Others may be attaching meanwhile, which makes the kernel skip a switch now and then: those are no calls.
        let lost: Vec<_> =
            recorded.losses.iter().filter(|lost| *lost.0 != LossCounter::ProbeMissed).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

/// Gloo and c10d, of which calls throw.
const GLOO: &str = r#"
#include <memory>
#include <stdexcept>
#include <vector>
#include <time.h>
static void nap() { struct timespec t = { 0, 1000000 }; nanosleep(&t, nullptr); }
namespace gloo {
struct Context { const int rank, size; Context(int r, int s) : rank(r), size(s) {} virtual ~Context() {} };
struct AllreduceOptions {
	std::shared_ptr<Context> context;
	long timeout = 0;
	int algorithm = 0;
	std::vector<std::unique_ptr<int>> in, out;
	size_t elements = 0, elementSize = 0;
};
struct BarrierOptions { std::shared_ptr<Context> context; bool fail; };
void allreduce(const AllreduceOptions &o) { nap(); if (o.elements == 13) throw std::runtime_error("peer is gone"); if (o.elements == 14) { nap(); return; } nap(); }
void barrier(BarrierOptions &o) { nap(); if (o.fail) throw std::runtime_error("timed out"); }
}
namespace c10d {
struct Work { virtual ~Work() {} };
struct ProcessGroupGloo { virtual ~ProcessGroupGloo() {} void monitoredBarrier(gloo::BarrierOptions &); std::unique_ptr<Work> allreduce(std::vector<int> &); };
void ProcessGroupGloo::monitoredBarrier(gloo::BarrierOptions &o) { gloo::barrier(o); nap(); }
std::unique_ptr<Work> ProcessGroupGloo::allreduce(std::vector<int> &v) { return std::make_unique<Work>(); }
}
"#;

const GLOO_USER: &str = r#"
int main()
{
	auto context = std::make_shared<gloo::Context>(1, 2);
	gloo::AllreduceOptions options;
	options.context = context;
	options.elementSize = 4;
	gloo::BarrierOptions barrier { context, false };
	c10d::ProcessGroupGloo group;
	std::vector<int> tensors;
	int caught = 0;
	gate("ready");
	for (int i = 0; i < 30; i++) {
		options.elements = i % 3 ? 10 + i : 13;
		try { TIMED("gloo::allreduce", gloo::allreduce(options)); } catch (std::exception &) { caught++; }
	}
	for (int i = 0; i < 10; i++) {
		barrier.fail = i % 2;
		try { TIMED("monitored", group.monitoredBarrier(barrier)); } catch (std::exception &) { caught++; }
	}
	auto work = group.allreduce(tensors);
	printf("caught %d\n", caught);
	gate("done");
}
"#;

#[test]
fn exceptions_pass_through_probed_functions_and_close_their_calls() {
    needs!("g++");
    for flags in ["-O2", "-O0"] {
        let folder = Folder::new();
        let header = GLOO.split("void allreduce").next().expect("a part").to_owned();
        folder.build("libgloo.so.0", GLOO, &[flags]);
        // The declarations again, without the bodies.
        let declarations = "void allreduce(const AllreduceOptions &); void barrier(BarrierOptions &); }
namespace c10d { struct Work { virtual ~Work() {} };
struct ProcessGroupGloo { virtual ~ProcessGroupGloo() {} void monitoredBarrier(gloo::BarrierOptions &); std::unique_ptr<Work> allreduce(std::vector<int> &); }; }";
        let user = format!(
            "{header}{declarations}\n{}{GLOO_USER}",
            C.replace("static void nap(int ms)", "static void nap_(int ms)")
        );
        let user = folder.build("user", &user, &[flags, "-L.", "-l:libgloo.so.0", "-Wl,-rpath,."]);
        let mut program = Program::spawn(Command::new(&user).current_dir(folder.path("")));
        program.until("ready");
        let mut live = Live::attach(&[program.pid()]);
        let lines = live.run(&mut program, "done");
        assert!(lines.contains(&"caught 15".to_owned()), "{lines:?}");
        let recorded = live.finish();
        program.end();

        let all = recorded.of("gloo::allreduce");
        let (left, returned): (Vec<_>, Vec<_>) = all.into_iter().partition(|call| call.left);
        within(&lines, &returned, "gloo::allreduce");
        assert_eq!((left.len(), returned.len()), (10, 20), "{:?}", recorded.found);
        for call in &returned {
            assert!(call.duration_ns >= 2_000_000, "{call:?}");
            assert_eq!((call.bytes, call.rank, call.group_size), (call.elements * 4, Some(1), 2));
            assert_eq!(call.flags, 0, "{call:?}");
        }
        // Thrown after a millisecond and caught at once: the calls that follow are not within it.
        for call in &left {
            assert_eq!((call.flags, call.bytes), (call_flags::OPEN, 52), "{call:?}");
            assert!(call.duration_ns >= 1_000_000, "{call:?}");
            let next = returned.iter().find(|next| next.start_ns > call.start_ns).expect("two more");
            assert!(call.start_ns + call.duration_ns < next.start_ns, "{call:?} {next:?}");
        }
        let outer = recorded.of("c10d::ProcessGroupGloo::monitoredBarrier");
        let (left, returned): (Vec<_>, Vec<_>) = outer.into_iter().partition(|call| call.left);
        within(&lines, &returned, "monitored");
        assert_eq!((left.len(), returned.len()), (5, 5));
        let inner = recorded.of("gloo::barrier");
        assert_eq!((inner.len(), inner.iter().filter(|call| call.left).count()), (10, 5));
        assert!(inner.iter().all(|call| call.flags & call_flags::NESTED != 0));
        let [begun] = recorded.of("c10d::ProcessGroupGloo::allreduce")[..] else { panic!("one c10d call") };
        assert_eq!((begun.flags, begun.library), (call_flags::ASYNC, CollectiveLibrary::C10d));
        assert_eq!(recorded.losses.get(&LossCounter::CallOpen), Some(&20), "{:?}", recorded.losses);
    }
}

const FILTERED_USER: &str = r#"
#include <stddef.h>
#include <sys/prctl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
__attribute__((noinline)) int MPI_Barrier(void *comm) { nap(1); return 0; }
int main(void)
{
	// uretprobe and uprobe: what a filter that was written before them does not let pass.
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 335, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 336, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 5, code };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 1;
	gate("ready");
	for (int i = 0; i < 10; i++)
		MPI_Barrier(0);
	gate("done");
	return 0;
}
"#;

#[test]
fn a_process_whose_seccomp_filter_is_older_than_the_kernel_survives() {
    needs!("gcc");
    let folder = Folder::new();
    let user = folder.build("user", &format!("{C}{FILTERED_USER}"), &[]);
    let mut program = Program::start(&user, &[]);
    program.until("ready");
    let mut live = Live::attach(&[program.pid()]);
    live.run(&mut program, "done");
    let recorded = live.finish();
    program.end();
    assert_eq!(recorded.of("MPI_Barrier").len(), 10);
}

/// Calls that hang, are jumped out of, or lie in one another.
const HANG_USER: &str = r#"
static jmp_buf back;
__attribute__((noinline)) int MPI_Barrier(void *comm) { if (comm == (void *)1) longjmp(back, 1); nap(comm ? 600000 : 1); return 0; }
__attribute__((noinline)) int MPI_Allreduce(const void *s, void *r, int n, void *type, void *op, void *comm)
{
	if (n)
		MPI_Allreduce(s, r, n - 1, type, op, comm);
	nap(1);
	return n;
}
static void *hang(void *comm) { printf("hangs %lld\n", now()); fflush(stdout); MPI_Barrier(comm); return 0; }
int main(int argc, char **argv)
{
	pthread_t thread;
	gate("ready");
	for (volatile int i = 0; i < 5; i++)
		if (!setjmp(back))
			MPI_Barrier((void *)1);
	MPI_Barrier(0);
	TIMED("deep", MPI_Allreduce(0, 0, 11, 0, 0, 0));
	if (argc > 1) {
		pid_t child = fork();
		if (!child) {
			MPI_Barrier(0);
			execl(argv[0], argv[0], (char *)0);
		}
		waitpid(child, 0, 0);
	}
	pthread_create(&thread, 0, hang, (void *)0x44000000);
	nap(50);
	printf("still %lld\n", now());
	gate("done");
	return 0;
}
"#;

#[test]
fn calls_that_hang_are_told_at_the_end_and_those_that_were_left_or_lie_too_deep_are_counted() {
    needs!("gcc");
    let folder = Folder::new();
    let user = folder.build("user", &format!("{C}{HANG_USER}"), &[]);
    let mut program = Program::start(&user, &[]);
    program.until("ready");
    let mut live = Live::attach(&[program.pid()]);
    let lines = live.run(&mut program, "done");
    let recorded = live.finish();
    program.kill();
    let said = |what: &str| -> u64 {
        let time = lines.iter().find_map(|line| line.strip_prefix(what)).expect("a line");
        time.trim().parse().expect("a time")
    };
    let barriers = recorded.of("MPI_Barrier");
    let flags: Vec<_> = barriers.iter().map(|call| (call.flags, call.left)).collect();
    let left = (call_flags::OPEN, true);
    assert_eq!(flags[..5], [left; 5]);
    assert_eq!(flags[5..], [(call_flags::RETURNED, false), (call_flags::OPEN, false)]);
    let hangs = barriers.last().expect("the last");
    assert!(said("hangs") <= hangs.start_ns && hangs.start_ns < said("still"), "{hangs:?}");
    assert!(hangs.start_ns + hangs.duration_ns >= said("still"), "{hangs:?}");
    assert_eq!(hangs.group, "MPI_COMM_WORLD");
    let deep = recorded.of("MPI_Allreduce");
    assert_eq!(deep.len(), 8, "of twelve");
    assert_eq!(deep.iter().filter(|call| call.flags & call_flags::NESTED != 0).count(), 7);
    // Outermost first: the return values say that no return was taken for another's.
    assert_eq!(deep.iter().map(|call| call.result).collect::<Vec<_>>(), [11, 10, 9, 8, 7, 6, 5, 4]);
    assert_eq!(recorded.losses.get(&LossCounter::CallOpen), Some(&9));
}

#[test]
fn what_the_job_forks_and_starts_is_recorded_and_what_others_do_is_not() {
    needs!("gcc");
    let folder = Folder::new();
    // Linked into the program: there is no library, only a table of symbols.
    let user = folder.build("user", &format!("{C}{HANG_USER}"), &["-static"]);
    let mut program = Program::start(&user, &["fork"]);
    let mut bystander = Program::start(&user, &[]);
    program.until("ready");
    bystander.until("ready");
    let mut live = Live::attach(&[program.pid()]);
    bystander.go();
    bystander.until("done");
    // The child's program reads the next line, and makes the calls of its parent up to where it hangs.
    live.run(&mut program, "ready");
    live.run(&mut program, "done");
    let recorded = live.finish();
    let by_pid = |pid: u32| recorded.calls.iter().filter(|(of, _)| *of == pid).count();
    assert_eq!(by_pid(bystander.pid()), 0);
    // 5 left, 1, 8 of 12.
    assert_eq!(by_pid(program.pid()), 14);
    let child: Vec<_> = recorded.calls.iter().filter(|(pid, _)| *pid != program.pid()).collect();
    assert_eq!(child.len(), 16, "one, then as its parent, then one that hangs");
    assert_eq!(child[15].1.flags, call_flags::OPEN);
    program.kill();
    bystander.kill();
    if let Some((pid, _)) = child.first() {
        let _ = Command::new("kill").arg(pid.to_string()).status();
    }
}

/// An overlay mount, as containers have: each gives the file another device number.
struct Overlay(std::path::PathBuf);

impl Overlay {
    fn mount(folder: &Folder, name: &str) -> Option<Self> {
        let at = folder.path(name);
        std::fs::create_dir(&at).expect("made");
        let layers =
            format!("lowerdir={}:{}", folder.path("image").display(), folder.path("empty").display());
        let mut command = Command::new("mount");
        command.args(["-t", "overlay", "overlay", "-o", &layers]).arg(&at);
        command.status().is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn two_containers_that_share_an_image_are_not_recorded_twice() {
    needs!("gcc", "mount");
    let folder = Folder::new();
    for name in ["image", "empty"] {
        std::fs::create_dir(folder.path(name)).expect("made");
    }
    folder.build("image/user", &format!("{C}{HANG_USER}"), &[]);
    let mounts = ["one", "two"].map(|name| Overlay::mount(&folder, name));
    let [Some(one), Some(two)] = &mounts else {
        println!("skipped: overlay file systems cannot be mounted");
        return;
    };
    let mut programs = [one, two].map(|mount| Program::start(&mount.0.join("user"), &[]));
    programs.iter_mut().for_each(|program| drop(program.until("ready")));
    let pids = programs.each_ref().map(Program::pid);
    let mut live = Live::attach(&pids);
    assert_eq!(live.found.attached.len(), 2, "{:?}", live.found);
    for program in &mut programs {
        live.run(program, "done");
    }
    let recorded = live.finish();
    programs.iter_mut().for_each(Program::kill);
    for of in pids {
        let calls: Vec<_> =
            recorded.calls.iter().filter(|(pid, _)| *pid == of).map(|(_, call)| call).collect();
        // 5 that were jumped out of, 1, 8 of 12, and one that hangs.
        assert_eq!(calls.len(), 15, "{calls:?}");
        assert_eq!(calls.iter().filter(|call| call.left).count(), 5);
        assert_eq!(calls.iter().filter(|call| call.flags == call_flags::RETURNED).count(), 2);
    }
}

#[test]
fn a_program_without_symbols_is_named() {
    needs!("gcc");
    let folder = Folder::new();
    let user = folder.build("user", &format!("{C}{HANG_USER}"), &["-static", "-s"]);
    let mut program = Program::start(&user, &[]);
    program.until("ready");
    let live = Live::attach(&[program.pid()]);
    let recorded = live.finish();
    program.kill();
    let [note] = &recorded.found.notes[..] else { panic!("{:?}", recorded.found) };
    assert!(note.text.contains("no symbols") && note.path.ends_with("/user"), "{note:?}");
}
