/* Work for `cargo xtask gpu`: CUDA's driver API alone, so that it needs neither PyTorch nor a compiler where it runs.
 *
 *   cc -O2 -pthread gpu_work.c -o gpu_work -ldl
 *   gpu_work mode=facts | mode=loop KEY=VALUE... | mode=events KEY=VALUE... | mode=before_init cupti=FILE
 *
 * facts        what the driver says of itself and of the first device
 * loop         launches kernels back to back until `count` kernels, `seconds` or a word in the page end it
 * events       one kernel at a time, each between two CUDA events: "event NAME before_ns after_ns elapsed_ns"
 * before_init  what CUPTI's functions return before cuInit and after it
 *
 * kernel_ns=N    how long each kernel spins (2000)        nodes=N     each launch is a graph of so many kernels (0: no graph)
 * seconds=S      how long (no end)                        count=N     kernels (no end)
 * page=FILE      numbers that others read and set, see below
 * load=FILE      is loaded before anything else           wait_ms=N   sleeps between loading the driver and cuInit
 * cupti=FILE     a CUPTI that the loop itself switches on and off, when the page asks: no agent, records thrown away
 *
 * The page holds eight numbers of 8 bytes: 0 kernels launched; 1 bytes of records that CUPTI returned to the loop itself;
 * 2 free and 3 total bytes of the device, once a second; 4 duration of cuInit, ns; 5 asked: 1 CUPTI on, 2 off; 6 what was
 * asked last and has been done; 7 asks it to end.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef uintptr_t handle;
enum { LAUNCHED, CUPTI_BYTES, FREE_BYTES, TOTAL_BYTES, INIT_NS, ASKED, DONE, END, PAGE_WORDS };

static uint64_t own_page[PAGE_WORDS], *page = own_page;
static void *cuda, *cupti;
static handle context, stream, module;

static uint64_t now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void *function(const char *name)
{
	void *found = dlsym(cuda, name);
	if (!found) {
		fprintf(stderr, "no %s\n", name);
		exit(2);
	}
	return found;
}

static void check(int code, const char *what)
{
	if (code) {
		fprintf(stderr, "%s: %d\n", what, code);
		exit(3);
	}
}

/* Calls whose arguments are all words or smaller: the ABI passes them alike. */
#define CALL1(name, a) check(((int (*)(handle))function(name))((handle)(a)), name)
#define CALL2(name, a, b) check(((int (*)(handle, handle))function(name))((handle)(a), (handle)(b)), name)
#define CALL3(name, a, b, c) \
	check(((int (*)(handle, handle, handle))function(name))((handle)(a), (handle)(b), (handle)(c)), name)

static const char *const NAMES[] = {"spin_2us", "spin_20us", "spin_200us", "spin_2ms", "spin"};
static const uint64_t DURATIONS[] = {2000, 20000, 200000, 2000000};
enum { CLASSES = 4, SPIN = 4, KERNELS = 5 };
static handle kernels[KERNELS];

static const char SPIN_PTX[] = ".visible .entry %s(.param .u64 duration_ns) {\n"
			       "  .reg .pred %%p; .reg .u64 %%begin, %%now, %%wanted;\n"
			       "  ld.param.u64 %%wanted, [duration_ns];\n  mov.u64 %%begin, %%globaltimer;\nagain:\n"
			       "  mov.u64 %%now, %%globaltimer;\n  sub.u64 %%now, %%now, %%begin;\n"
			       "  setp.lt.u64 %%p, %%now, %%wanted;\n  @%%p bra again;\n  ret;\n}\n";

static void begin_cuda(unsigned wait_ms)
{
	cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
	if (!cuda) {
		fprintf(stderr, "%s\n", dlerror());
		exit(4);
	}
	usleep(wait_ms * 1000);
	uint64_t begin = now_ns();
	CALL1("cuInit", 0);
	page[INIT_NS] = now_ns() - begin;
	CALL2("cuDevicePrimaryCtxRetain", &context, 0);
	CALL1("cuCtxSetCurrent", context);
}

static void load_kernels(void)
{
	char text[8192];
	int length = snprintf(text, sizeof text, ".version 7.0\n.target sm_70\n.address_size 64\n");
	for (int i = 0; i < KERNELS; i++)
		length += snprintf(text + length, sizeof text - length, SPIN_PTX, NAMES[i]);
	CALL2("cuModuleLoadData", &module, text);
	for (int i = 0; i < KERNELS; i++)
		CALL3("cuModuleGetFunction", &kernels[i], module, NAMES[i]);
	CALL2("cuStreamCreate", &stream, 1);
}

static int (*launch_kernel)(handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **,
			    void **);

static void launch(handle kernel, uint64_t duration_ns)
{
	void *parameters[] = {&duration_ns};
	check(launch_kernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL), "cuLaunchKernel");
}

/* A graph of kernels, each after the one before it. */
static handle chain(int nodes, uint64_t duration_ns)
{
	void *parameters[] = {&duration_ns};
	struct {
		handle function;
		unsigned grid[3], block[3], shared;
		void **parameters, **extra;
		handle other_kernel, context;
	} node_of = {kernels[SPIN], {1, 1, 1}, {32, 1, 1}, 0, parameters, NULL, 0, 0};
	handle made, node, before = 0, executable;
	int (*add)(handle *, handle, const handle *, size_t, const void *) = function("cuGraphAddKernelNode_v2");
	CALL2("cuGraphCreate", &made, 0);
	for (int i = 0; i < nodes; i++, before = node)
		check(add(&node, made, &before, i > 0, &node_of), "cuGraphAddKernelNode");
	CALL3("cuGraphInstantiateWithFlags", &executable, made, 0);
	return executable;
}

/* CUPTI alone: what it costs to have records, which nobody looks at. */

enum { BUFFERS = 64, BUFFER_BYTES = 256 << 10, COPY = 1, FILL = 2, DRIVER = 4, WAITS = 38, KERNEL = 10 };
static const unsigned KINDS[] = {COPY, FILL, WAITS, KERNEL};
/* cuStreamSynchronize, cuLaunchKernel, cuGraphLaunch: what the loop calls. */
static const unsigned CALLS[] = {126, 307, 514};
static _Alignas(8) uint8_t buffers[BUFFERS][BUFFER_BYTES];
static int taken[BUFFERS];

static void requested(uint8_t **buffer, size_t *size, size_t *most)
{
	*buffer = NULL, *size = 0, *most = 0;
	for (int i = 0; i < BUFFERS; i++)
		if (!__atomic_exchange_n(&taken[i], 1, __ATOMIC_ACQ_REL)) {
			*buffer = buffers[i], *size = BUFFER_BYTES;
			return;
		}
}

static void completed(handle ctx, uint32_t id, uint8_t *buffer, size_t size, size_t valid)
{
	(void)ctx, (void)id, (void)size;
	__atomic_fetch_add(&page[CUPTI_BYTES], valid, __ATOMIC_RELAXED);
	if (buffer)
		__atomic_store_n(&taken[(buffer - buffers[0]) / BUFFER_BYTES], 0, __ATOMIC_RELEASE);
}

/* A function of CUPTI; one that a version lacks returns -1. */
static int cupti_call(const char *name, handle a, handle b)
{
	int (*found)(handle, handle) = (int (*)(handle, handle))dlsym(cupti, name);
	return found ? found(a, b) : -1;
}

static void cupti_on(void)
{
	check(cupti_call("cuptiActivityRegisterCallbacks", (handle)requested, (handle)completed), "cupti callbacks");
	for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
		check(cupti_call("cuptiActivityEnable", KINDS[i], 0), "cuptiActivityEnable");
	for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
		if (cupti_call("cuptiActivityEnableDriverApi", CALLS[i], 1)) {
			/* Older than 12.6: all calls or none. */
			check(cupti_call("cuptiActivityEnable", DRIVER, 0), "cuptiActivityEnable");
			break;
		}
}

static void cupti_off(void)
{
	for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
		cupti_call("cuptiActivityDisable", KINDS[i], 0);
	for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++)
		cupti_call("cuptiActivityEnableDriverApi", CALLS[i], 0);
	cupti_call("cuptiActivityDisable", DRIVER, 0);
	cupti_call("cuptiActivityFlushAll", 1, 0);
	/* cuptiFinalize crashes jobs with graphs before 12.6, which is also when the calls above came. */
	if (dlsym(cupti, "cuptiActivityEnableDriverApi"))
		cupti_call("cuptiFinalize", 0, 0);
	/* It has forgotten the buffers that it still had. */
	for (int i = 0; i < BUFFERS; i++)
		__atomic_store_n(&taken[i], 0, __ATOMIC_RELEASE);
}

static void obey(void)
{
	uint64_t asked = __atomic_load_n(&page[ASKED], __ATOMIC_ACQUIRE);
	if (!cupti || asked == page[DONE])
		return;
	if (asked == 1)
		cupti_on();
	else
		cupti_off();
	__atomic_store_n(&page[DONE], asked, __ATOMIC_RELEASE);
}

static void loop(uint64_t count, uint64_t end_ns, uint64_t kernel_ns, unsigned nodes)
{
	int (*synchronize)(handle) = function("cuStreamSynchronize");
	int (*launch_graph)(handle, handle) = function("cuGraphLaunch");
	int (*memory)(size_t *, size_t *) = function("cuMemGetInfo_v2");
	handle graph = nodes ? chain(nodes, kernel_ns) : 0;
	uint64_t launched = 0, look_ns = 0, flush_ns = 0, now;
	/* About 512 kernels, and at most 20 ms of them, between two waits. */
	unsigned batch = 20000000 / (kernel_ns + 1000);
	batch = batch > 512 ? 512 : batch;
	batch = nodes ? batch / nodes + 1 : batch + 1;
	while ((now = now_ns()) < end_ns && launched < count && !__atomic_load_n(&page[END], __ATOMIC_RELAXED)) {
		obey();
		if (now >= look_ns) {
			size_t free_bytes, total_bytes;
			check(memory(&free_bytes, &total_bytes), "cuMemGetInfo");
			page[FREE_BYTES] = free_bytes, page[TOTAL_BYTES] = total_bytes;
			look_ns = now + 1000000000;
		}
		if (cupti && now >= flush_ns) {
			cupti_call("cuptiActivityFlushAll", 0, 0);
			flush_ns = now + 50000000;
		}
		for (unsigned i = 0; i < batch; i++) {
			if (graph)
				check(launch_graph(graph, stream), "cuGraphLaunch");
			else
				launch(kernels[SPIN], kernel_ns);
			launched += nodes ? nodes : 1;
			__atomic_store_n(&page[LAUNCHED], launched, __ATOMIC_RELAXED);
		}
		check(synchronize(stream), "cuStreamSynchronize");
	}
	printf("total %llu\n", (unsigned long long)launched);
}

static void events(uint64_t end_ns)
{
	handle begin, end;
	CALL2("cuEventCreate", &begin, 0);
	CALL2("cuEventCreate", &end, 0);
	while (now_ns() < end_ns && !__atomic_load_n(&page[END], __ATOMIC_RELAXED)) {
		for (int i = 0; i < CLASSES; i++) {
			uint64_t before = now_ns();
			CALL2("cuEventRecord", begin, stream);
			launch(kernels[i], DURATIONS[i]);
			CALL2("cuEventRecord", end, stream);
			CALL1("cuStreamSynchronize", stream);
			float milliseconds;
			uint64_t after = now_ns();
			CALL3("cuEventElapsedTime", &milliseconds, begin, end);
			printf("event %s %llu %llu %.0f\n", NAMES[i], (unsigned long long)before,
			       (unsigned long long)after, milliseconds * 1e6);
		}
		fflush(stdout);
		page[LAUNCHED] += CLASSES;
	}
}

static void facts(void)
{
	Dl_info from;
	char path[4096] = "", name[256] = "";
	int version = 0, major = 0, minor = 0;
	size_t free_bytes = 0, total_bytes = 0;
	if (dladdr(function("cuInit"), &from))
		realpath(from.dli_fname, path);
	CALL1("cuDriverGetVersion", &version);
	CALL3("cuDeviceGetName", name, sizeof name, 0);
	CALL3("cuDeviceGetAttribute", &major, 75, 0);
	CALL3("cuDeviceGetAttribute", &minor, 76, 0);
	CALL2("cuMemGetInfo_v2", &free_bytes, &total_bytes);
	printf("libcuda %s\ncuda_version %d\ndevice %s\ncompute_capability %d.%d\nfree_bytes %zu\ntotal_bytes %zu\n", path,
	       version, name, major, minor, free_bytes, total_bytes);
}

/* What functions of CUPTI say where the driver has not begun. */
static void codes(const char *when)
{
	handle subscriber = 0;
	uint32_t version = 0;
	uint64_t time = 0;
	int (*subscribe)(handle *, void *, void *) = (int (*)(handle *, void *, void *))dlsym(cupti, "cuptiSubscribe");
	int got = cupti_call("cuptiGetVersion", (handle)&version, 0);
	printf("%s cuptiGetVersion %d (%u)\n", when, got, version);
	printf("%s cuptiGetTimestamp %d\n", when, cupti_call("cuptiGetTimestamp", (handle)&time, 0));
	int code = subscribe ? subscribe(&subscriber, (void *)requested, NULL) : -1;
	printf("%s cuptiSubscribe %d\n", when, code);
	if (!code)
		printf("%s cuptiUnsubscribe %d\n", when, cupti_call("cuptiUnsubscribe", subscriber, 0));
	printf("%s cuptiActivityRegisterCallbacks %d\n", when,
	       cupti_call("cuptiActivityRegisterCallbacks", (handle)requested, (handle)completed));
	printf("%s cuptiActivityEnable %d\n", when, cupti_call("cuptiActivityEnable", KERNEL, 0));
	printf("%s cuptiActivityFlushAll %d\n", when, cupti_call("cuptiActivityFlushAll", 0, 0));
	printf("%s cuptiActivityDisable %d\n", when, cupti_call("cuptiActivityDisable", KERNEL, 0));
	fflush(stdout);
}

static const char *option(int argc, char **argv, const char *key)
{
	size_t length = strlen(key);
	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], key, length) && argv[i][length] == '=')
			return argv[i] + length + 1;
	return NULL;
}

static uint64_t number(int argc, char **argv, const char *key, uint64_t otherwise)
{
	const char *text = option(argc, argv, key);
	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void *load(const char *path)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		exit(5);
	}
	return library;
}

int main(int argc, char **argv)
{
	const char *mode = option(argc, argv, "mode"), *file = option(argc, argv, "page");
	if (!mode)
		return fprintf(stderr, "mode=facts, loop, events or before_init\n"), 1;
	if (file) {
		int opened = open(file, O_RDWR | O_CREAT, 0644);
		check(opened < 0 || ftruncate(opened, sizeof own_page), file);
		page = mmap(NULL, sizeof own_page, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
		check(page == MAP_FAILED, file);
	}
	if (option(argc, argv, "load"))
		load(option(argc, argv, "load"));
	if (option(argc, argv, "cupti"))
		cupti = load(option(argc, argv, "cupti"));
	if (!strcmp(mode, "before_init")) {
		check(!cupti, "cupti=FILE");
		codes("before");
	}
	begin_cuda(number(argc, argv, "wait_ms", 0));
	uint64_t seconds = number(argc, argv, "seconds", 0);
	uint64_t end_ns = seconds ? now_ns() + seconds * 1000000000 : UINT64_MAX;
	launch_kernel = function("cuLaunchKernel");
	if (!strcmp(mode, "facts")) {
		facts();
	} else if (!strcmp(mode, "before_init")) {
		codes("after");
	} else if (!strcmp(mode, "loop")) {
		load_kernels();
		loop(number(argc, argv, "count", UINT64_MAX), end_ns, number(argc, argv, "kernel_ns", 2000),
		     (unsigned)number(argc, argv, "nodes", 0));
	} else if (!strcmp(mode, "events")) {
		load_kernels();
		events(end_ns);
	} else {
		return fprintf(stderr, "no mode %s\n", mode), 1;
	}
	return 0;
}
