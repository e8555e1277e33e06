/* Launches kernels back to back and says how many a second.
 *
 *   cc -O1 -g -fno-omit-frame-pointer -pthread gpu_storm.c -o gpu_storm -ldl
 *   gpu_storm SECONDS [KERNEL_NS [THREADS [NODES [COUNTER_FILE]]]]
 *
 * Each thread has a stream of its own and waits for it every 512 launches. With NODES each launch is a graph of so many
 * kernels, one after another (0: a kernel). COUNTER_FILE holds 8 bytes: launches of the first thread. Prints the launches
 * of each tenth of a second of the first thread, then "total N" of all.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef uintptr_t handle;
static void *cuda;
static handle context, kernel, graph;
static uint64_t kernel_ns = 2000, own_counter, *counter = &own_counter, end_ns;

static const char PTX[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
			  ".visible .entry storm(.param .u64 duration_ns) {\n"
			  "  .reg .pred %p; .reg .u64 %begin, %now, %wanted;\n"
			  "  ld.param.u64 %wanted, [duration_ns];\n  mov.u64 %begin, %globaltimer;\nagain:\n"
			  "  mov.u64 %now, %globaltimer;\n  sub.u64 %now, %now, %begin;\n"
			  "  setp.lt.u64 %p, %now, %wanted;\n  @%p bra again;\n  ret;\n}\n";

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

static void *storm(void *first)
{
	int (*launch)(handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **,
		      void **) = function("cuLaunchKernel");
	int (*synchronize)(handle) = function("cuStreamSynchronize");
	handle stream;
	check(((int (*)(handle))function("cuCtxSetCurrent"))(context), "cuCtxSetCurrent");
	check(((int (*)(handle *, unsigned))function("cuStreamCreate"))(&stream, 1), "cuStreamCreate");
	void *parameters[] = {&kernel_ns};
	int (*launch_graph)(handle, handle) = function("cuGraphLaunch");
	uint64_t launched = 0, shown = 0, show_ns = now_ns() + 100000000;
	while (now_ns() < end_ns) {
		for (int i = 0; i < 512; i++)
			check(graph ? launch_graph(graph, stream)
				    : launch(kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL),
			      "launch");
		check(synchronize(stream), "cuStreamSynchronize");
		launched += 512;
		if (first) {
			__atomic_store_n(counter, launched, __ATOMIC_RELAXED);
			if (now_ns() >= show_ns) {
				printf("%llu\n", (unsigned long long)(launched - shown));
				fflush(stdout);
				shown = launched;
				show_ns += 100000000;
			}
		}
	}
	return (void *)(uintptr_t)launched;
}

/* A graph of kernels, each after the one before it. */
static handle chain(int nodes)
{
	void *parameters[] = {&kernel_ns};
	struct {
		handle function;
		unsigned grid[3], block[3], shared;
		void **parameters, **extra;
		handle other_kernel, context;
	} launch = {kernel, {1, 1, 1}, {32, 1, 1}, 0, parameters, NULL, 0, 0};
	handle made, node, before = 0, executable;
	int (*add)(handle *, handle, const handle *, size_t, const void *) = function("cuGraphAddKernelNode_v2");
	check(((int (*)(handle *, unsigned))function("cuGraphCreate"))(&made, 0), "cuGraphCreate");
	for (int i = 0; i < nodes; i++, before = node)
		check(add(&node, made, &before, i > 0, &launch), "cuGraphAddKernelNode");
	check(((int (*)(handle *, handle, unsigned long long))function("cuGraphInstantiateWithFlags"))(&executable, made,
												      0),
	      "cuGraphInstantiate");
	return executable;
}

/* The driver has threads of its own, which the stand-ins have not: with one thread alone the C library takes no locks. */
static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 1;
	kernel_ns = argc > 2 ? strtoull(argv[2], NULL, 0) : 2000;
	int threads = argc > 3 ? atoi(argv[3]) : 1;
	int nodes = argc > 4 ? atoi(argv[4]) : 0;
	if (argc > 5) {
		int file = open(argv[5], O_RDWR | O_CREAT, 0644);
		check(file < 0 || ftruncate(file, 8), argv[5]);
		counter = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		check(counter == MAP_FAILED, argv[5]);
	}
	cuda = dlopen("libcuda.so.1", RTLD_NOW);
	if (!cuda)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	handle module;
	check(((int (*)(unsigned))function("cuInit"))(0), "cuInit");
	check(((int (*)(handle *, int))function("cuDevicePrimaryCtxRetain"))(&context, 0), "cuDevicePrimaryCtxRetain");
	check(((int (*)(handle))function("cuCtxSetCurrent"))(context), "cuCtxSetCurrent");
	check(((int (*)(handle *, const void *))function("cuModuleLoadData"))(&module, PTX), "cuModuleLoadData");
	check(((int (*)(handle *, handle, const char *))function("cuModuleGetFunction"))(&kernel, module, "storm"),
	      "cuModuleGetFunction");
	if (nodes > 0)
		graph = chain(nodes);
	end_ns = now_ns() + (uint64_t)(seconds * 1e9);
	pthread_t others[64], driver;
	check(pthread_create(&driver, NULL, sleeper, NULL), "pthread_create");
	for (int i = 1; i < threads && i < 64; i++)
		check(pthread_create(&others[i], NULL, storm, NULL), "pthread_create");
	uint64_t total = (uint64_t)(uintptr_t)storm(&context);
	for (int i = 1; i < threads && i < 64; i++) {
		void *launched;
		pthread_join(others[i], &launched);
		total += (uint64_t)(uintptr_t)launched;
	}
	printf("total %llu\n", (unsigned long long)total);
	return 0;
}
