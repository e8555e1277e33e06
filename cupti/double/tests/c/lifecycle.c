/* The callback API, flushing what runs, attributes, another clock, detaching and attaching again.
 *
 * Prints "name value" lines. Prototypes are written out, so that nothing is shared with the stand-ins.
 * argv: name of libcupti.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef uintptr_t handle;

static void *cuda, *cupti;
static unsigned (*next)(uint8_t *, size_t, uint8_t **);

#define FUNCTION(library, name) ((unsigned (*)())dlsym(library, name))
#define CUDA(name, ...)                                                                                    \
	do {                                                                                               \
		unsigned code = FUNCTION(cuda, name)(__VA_ARGS__);                                         \
		if (code)                                                                                  \
			exit(fprintf(stderr, "%s %u\n", name, code));                                      \
	} while (0)

static int kernels, unfinished, untimed;
static uint64_t last_start;
static pthread_t main_thread;

static void requested(uint8_t **buffer, size_t *size, size_t *most)
{
	*most = 2;
	*size = 4096;
	*buffer = aligned_alloc(8, *size);
}

static void completed(handle context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
	(void)context, (void)stream, (void)size;
	uint8_t *record = NULL;
	int records = 0;
	/* CUPTI's own thread is slow with what it hands back: a flush has to wait for it. */
	if (!pthread_equal(pthread_self(), main_thread))
		usleep(20000);
	while (next(buffer, valid, &record) == 0) {
		uint32_t kind;
		uint64_t times[2];
		memcpy(&kind, record, 4);
		memcpy(times, record + 16, 16);
		records++;
		if (kind == 10) {
			kernels++;
			unfinished += times[1] == 0 && times[0] != 0;
			untimed += times[1] == 0 && times[0] == 0;
			last_start = times[0];
		}
	}
	if (records > 2)
		printf("too_many_records %d\n", records);
	free(buffer);
}

static int entered, left, finalize_at_exit;
static unsigned finalized = 77;

struct callback_data {
	int site;
	const char *name;
	const void *parameters;
	unsigned *result;
	const char *symbol;
	handle context;
	uint32_t context_id;
	uint64_t *data;
	uint32_t correlation;
};

static void callback(void *userdata, uint32_t domain, uint32_t cbid, const struct callback_data *data)
{
	if (userdata != &entered || domain != 1 || cbid != 307 || strcmp(data->symbol, "gemm"))
		printf("wrong_callback %u %u\n", domain, cbid);
	if (data->site == 0) {
		entered++;
		*data->data = data->correlation;
	} else {
		left++;
		if (*data->data != data->correlation || *data->result)
			printf("wrong_exit %u\n", data->correlation);
		if (finalize_at_exit)
			finalized = FUNCTION(cupti, "cuptiFinalize")();
	}
}

static uint64_t my_clock(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return 1000000000000000ull + time.tv_sec * 1000000000ull + time.tv_nsec;
}

static handle stream, kernel;

static void launch(uint64_t duration_ns)
{
	void *parameters[] = {&duration_ns};
	CUDA("cuLaunchKernel", kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	main_thread = pthread_self();
	cuda = dlopen("libcuda.so.1", RTLD_NOW);
	cupti = dlopen(argv[1], RTLD_NOW);
	if (!cuda || !cupti)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	next = (unsigned (*)(uint8_t *, size_t, uint8_t **))dlsym(cupti, "cuptiActivityGetNextRecord");
	handle context, module, subscriber, second;
	CUDA("cuInit", 0);
	CUDA("cuDevicePrimaryCtxRetain", &context, 0);
	CUDA("cuCtxSetCurrent", context);
	CUDA("cuModuleLoadData", &module, "ptx");
	CUDA("cuModuleGetFunction", &kernel, module, "gemm");
	CUDA("cuStreamCreate", &stream, 1);

	printf("flush_before_register %u\n", FUNCTION(cupti, "cuptiActivityFlushAll")(0));
	for (int round = 0; round < 3; round++) {
		entered = left = kernels = finalize_at_exit = 0;
		printf("subscribe %u\n", FUNCTION(cupti, "cuptiSubscribe")(&subscriber, callback, &entered));
		printf("second %u\n", FUNCTION(cupti, "cuptiSubscribe")(&second, callback, NULL));
		FUNCTION(cupti, "cuptiEnableCallback")(1, subscriber, 1, 307);
		FUNCTION(cupti, "cuptiActivityRegisterCallbacks")(requested, completed);
		FUNCTION(cupti, "cuptiActivityEnable")(10);
		for (int i = 0; i < 10; i++)
			launch(1000);
		CUDA("cuStreamSynchronize", stream);
		FUNCTION(cupti, "cuptiActivityFlushAll")(0);
		printf("kernels %d\n", kernels);
		printf("callbacks %d %d\n", entered, left);
		finalize_at_exit = 1;
		launch(1000);
		printf("finalize %u\n", finalized);
		launch(1000);
		CUDA("cuStreamSynchronize", stream);
		printf("callbacks_after %d %d\n", entered, left);
	}

	/* A kernel that runs while it is flushed by force. */
	kernels = unfinished = 0;
	FUNCTION(cupti, "cuptiActivityRegisterCallbacks")(requested, completed);
	FUNCTION(cupti, "cuptiActivityEnable")(10);
	launch(100000000);
	usleep(10000);
	FUNCTION(cupti, "cuptiActivityFlushAll")(0);
	printf("running_by_default %d\n", kernels);
	FUNCTION(cupti, "cuptiActivityFlushAll")(1);
	printf("running_by_force %d %d\n", kernels, unfinished);
	CUDA("cuStreamSynchronize", stream);
	FUNCTION(cupti, "cuptiActivityFlushAll")(1);
	printf("running_later %d\n", kernels);

	/* Room for timing eight kernels only. */
	size_t size = 8, value = 8 * 32, buffers = 1, got = 0;
	FUNCTION(cupti, "cuptiActivitySetAttribute")(0, &size, &value);
	FUNCTION(cupti, "cuptiActivitySetAttribute")(2, &size, &buffers);
	FUNCTION(cupti, "cuptiActivityGetAttribute")(0, &size, &got);
	printf("attribute %zu\n", got);
	kernels = untimed = 0;
	launch(50000000);
	for (int i = 0; i < 9; i++)
		launch(1000);
	CUDA("cuStreamSynchronize", stream);
	FUNCTION(cupti, "cuptiActivityFlushAll")(0);
	printf("pool %d %d\n", kernels, untimed);

	/* Another clock. */
	uint64_t before = my_clock(), now;
	FUNCTION(cupti, "cuptiActivityRegisterTimestampCallback")(my_clock);
	FUNCTION(cupti, "cuptiGetTimestamp")(&now);
	printf("other_clock %d\n", now >= before && now <= my_clock());
	launch(1000);
	CUDA("cuStreamSynchronize", stream);
	FUNCTION(cupti, "cuptiActivityFlushAll")(0);
	printf("other_clock_record %d\n", last_start >= before && last_start <= my_clock());
	/* A record that nobody flushes. */
	launch(1000);
	CUDA("cuStreamSynchronize", stream);
	FUNCTION(cupti, "cuptiFinalize")();
	return 0;
}
