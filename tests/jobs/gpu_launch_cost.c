/* What a launch costs its thread: the median of each batch of launches, for as long as it runs.
 *
 *   cc -O1 -g -fno-omit-frame-pointer gpu_launch_cost.c -o gpu_launch_cost -ldl
 *   gpu_launch_cost SECONDS PAUSE_US BATCH
 *
 * Between launches it pauses for so long (0: none). Each line is CLOCK_MONOTONIC in ns and the median in ns, with one
 * reading of the clock in it, of which the cost is in the first line ("clock NS").
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

typedef uintptr_t handle;
static void *cuda;

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

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static uint64_t median(uint64_t *values, int count)
{
	qsort(values, count, sizeof(*values), by_size);
	return values[count / 2];
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 1;
	uint64_t end_ns = now_ns() + (uint64_t)(atof(argv[1]) * 1e9), kernel_ns = 0;
	int pause_us = atoi(argv[2]), batch = atoi(argv[3]);
	uint64_t *took = calloc(batch, sizeof(*took));
	cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
	if (!cuda || !took)
		return 2;
	handle context, module, kernel, stream;
	check(((int (*)(unsigned))function("cuInit"))(0), "cuInit");
	check(((int (*)(handle *, int))function("cuDevicePrimaryCtxRetain"))(&context, 0), "context");
	check(((int (*)(handle))function("cuCtxSetCurrent"))(context), "cuCtxSetCurrent");
	check(((int (*)(handle *, const char *))function("cuModuleLoadData"))(
		      &module, ".version 7.0\n.target sm_70\n.address_size 64\n"
			       ".visible .entry nothing(.param .u64 duration_ns) {\n  ret;\n}\n"),
	      "module");
	check(((int (*)(handle *, handle, const char *))function("cuModuleGetFunction"))(&kernel, module, "nothing"),
	      "kernel");
	check(((int (*)(handle *, unsigned))function("cuStreamCreate"))(&stream, 1), "stream");
	int (*launch)(handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, handle, void **,
		      void **) = function("cuLaunchKernel");
	int (*synchronize)(handle) = function("cuStreamSynchronize");
	void *parameters[] = {&kernel_ns};
	for (int i = 0; i < batch; i++) {
		uint64_t begin = now_ns();
		took[i] = now_ns() - begin;
	}
	printf("clock %llu\n", (unsigned long long)median(took, batch));
	while (now_ns() < end_ns) {
		for (int i = 0; i < batch; i++) {
			uint64_t begin = now_ns();
			check(launch(kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL), "launch");
			took[i] = now_ns() - begin;
			if (pause_us)
				usleep(pause_us);
			else if (i % 512 == 511)
				check(synchronize(stream), "wait");
		}
		check(synchronize(stream), "wait");
		uint64_t value = median(took, batch);
		printf("%llu %llu\n", (unsigned long long)now_ns(), (unsigned long long)value);
		fflush(stdout);
	}
	return 0;
}
