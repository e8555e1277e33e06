/* A CUDA program that profiles itself with CUPTI and prints every record, for comparison with the truth log.
 *
 * Prototypes and offsets are written out here, from CUPTI's headers, so that the program shares nothing with the
 * stand-ins. argv: name of libcupti, number of rounds, how many buffers to refuse, kind of kernels' records (10). Prints "record KIND OFFSET fields...", "dropped N", "done".
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uintptr_t handle;

static void *cuda, *cupti;

#define CALL(library, function, ...)                                                                       \
	do {                                                                                               \
		unsigned (*f)() = (unsigned (*)())dlsym(library, #function);                               \
		if (!f) {                                                                                  \
			fprintf(stderr, "no %s\n", #function);                                             \
			exit(3);                                                                           \
		}                                                                                          \
		unsigned code = f(__VA_ARGS__);                                                            \
		if (code) {                                                                                \
			printf("code %s %u\n", #function, code);                                           \
			if (library == cuda)                                                               \
				exit(4);                                                                   \
		}                                                                                          \
	} while (0)

static uint32_t u32(const uint8_t *record, int offset)
{
	uint32_t value;
	memcpy(&value, record + offset, 4);
	return value;
}

static uint64_t u64(const uint8_t *record, int offset)
{
	uint64_t value;
	memcpy(&value, record + offset, 8);
	return value;
}

static int null_buffers;

static void requested(uint8_t **buffer, size_t *size, size_t *most)
{
	*most = 0;
	*size = 8 * 1024;
	*buffer = null_buffers-- > 0 ? NULL : aligned_alloc(8, *size);
}

static void print(const uint8_t *record, size_t offset)
{
	uint32_t kind = u32(record, 0);
	printf("record %u %zu ", kind, offset);
	switch (kind) {
	case 3:
	case 10:
		printf("%llu %llu %u %u %u %u %llu %u %s\n", (unsigned long long)u64(record, 16),
		       (unsigned long long)u64(record, 24), u32(record, 40), u32(record, 44), u32(record, 48),
		       u32(record, 92), (unsigned long long)u64(record, 144), u32(record, 156),
		       (const char *)u64(record, 104));
		break;
	case 1:
		printf("%llu %llu %u %u %u %u %llu %u %u\n", (unsigned long long)u64(record, 16),
		       (unsigned long long)u64(record, 24), u32(record, 32), u32(record, 36), u32(record, 40),
		       u32(record, 44), (unsigned long long)u64(record, 8), record[4], record[5] * 16 + record[6]);
		break;
	case 2:
		printf("%llu %llu %u %u %u %u %llu\n", (unsigned long long)u64(record, 16),
		       (unsigned long long)u64(record, 24), u32(record, 32), u32(record, 36), u32(record, 40),
		       u32(record, 44), (unsigned long long)u64(record, 8));
		break;
	case 4:
	case 5:
		printf("%llu %llu %u %u %u %u\n", (unsigned long long)u64(record, 8),
		       (unsigned long long)u64(record, 16), u32(record, 4), u32(record, 24), u32(record, 28),
		       u32(record, 32));
		break;
	case 38:
		printf("%llu %llu %u %u %u\n", (unsigned long long)u64(record, 8),
		       (unsigned long long)u64(record, 16), u32(record, 4), u32(record, 24), u32(record, 32));
		break;
	case 51:
		printf("%llu %llu %u %u %u\n", (unsigned long long)u64(record, 8),
		       (unsigned long long)u64(record, 16), u32(record, 4), u32(record, 28), u32(record, 36));
		break;
	default:
		printf("\n");
	}
}

static void completed(handle context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
	(void)context, (void)stream, (void)size;
	uint8_t *record = NULL;
	unsigned (*next)(uint8_t *, size_t, uint8_t **) = dlsym(cupti, "cuptiActivityGetNextRecord");
	while (next(buffer, valid, &record) == 0)
		print(record, (size_t)(record - buffer));
	printf("end %zu\n", valid);
	free(buffer);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	int rounds = atoi(argv[2]);
	null_buffers = argc > 3 ? atoi(argv[3]) : 0;
	cuda = dlopen("libcuda.so.1", RTLD_NOW);
	if (!cuda)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	handle context, module, kernel, stream, other, event, begin, graph, first, node, executable;
	CALL(cuda, cuInit, 0);
	CALL(cuda, cuDevicePrimaryCtxRetain, &context, 0);
	CALL(cuda, cuCtxSetCurrent, context);
	CALL(cuda, cuModuleLoadData, &module, "ptx");
	CALL(cuda, cuModuleGetFunction, &kernel, module, "gemm");
	CALL(cuda, cuStreamCreate, &stream, 1);
	CALL(cuda, cuStreamCreate, &other, 1);
	CALL(cuda, cuEventCreate, &event, 0);
	CALL(cuda, cuEventCreate, &begin, 0);
	uint64_t memory, duration_ns = 200000;
	void *parameters[] = {&duration_ns}, *pinned, *pageable = malloc(1 << 20);
	CALL(cuda, cuMemAlloc_v2, &memory, 1 << 20);
	CALL(cuda, cuMemHostAlloc, &pinned, 1 << 20, 0);
	struct {
		handle function;
		uint32_t grid[3], block[3], shared;
		void **parameters, **extra;
		handle kern, context;
	} launch = {kernel, {4, 1, 1}, {64, 1, 1}, 0, parameters, NULL, 0, 0};
	CALL(cuda, cuGraphCreate, &graph, 0);
	CALL(cuda, cuGraphAddKernelNode_v2, &first, graph, NULL, (size_t)0, &launch);
	CALL(cuda, cuGraphAddKernelNode_v2, &node, graph, &first, (size_t)1, &launch);
	CALL(cuda, cuGraphAddKernelNode_v2, &node, graph, &first, (size_t)1, &launch);
	CALL(cuda, cuGraphInstantiateWithFlags, &executable, graph, 0ull);
	/* Launched before anybody looks: in the truth log, not in the records. */
	CALL(cuda, cuLaunchKernel, kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);

	cupti = dlopen(argv[1], RTLD_NOW);
	if (!cupti)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	uint32_t version;
	CALL(cupti, cuptiGetVersion, &version);
	printf("version %u\n", version);
	CALL(cupti, cuptiActivityRegisterCallbacks, requested, completed);
	CALL(cupti, cuptiSetThreadIdType, 1);
	int kinds[] = {argc > 4 ? atoi(argv[4]) : 10, 1, 2, 4, 38, 17};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		CALL(cupti, cuptiActivityEnable, kinds[i]);
	CALL(cupti, cuptiActivityEnableAndDump, 9);
	CALL(cupti, cuptiActivityEnableAndDump, 37);
	for (int i = 0; i < rounds; i++) {
		CALL(cuda, cuEventRecord, begin, stream);
		CALL(cuda, cuMemcpyHtoDAsync_v2, memory, (uint64_t)pinned, (size_t)(1 << 20), stream);
		CALL(cuda, cuLaunchKernel, kernel, 8, 2, 1, 128, 1, 1, 0, stream, parameters, NULL);
		CALL(cuda, cuEventRecord, event, stream);
		CALL(cuda, cuStreamWaitEvent, other, event, 0);
		CALL(cuda, cuMemsetD8Async, memory, 1, (size_t)4096, other);
		CALL(cuda, cuGraphLaunch, executable, other);
		CALL(cuda, cuMemcpyDtoH_v2, (uint64_t)pageable, memory, (size_t)(1 << 19));
		CALL(cuda, cuStreamSynchronize, other);
		CALL(cuda, cuEventSynchronize, event);
	}
	float ms;
	CALL(cuda, cuEventElapsedTime, &ms, begin, event);
	printf("elapsed %.6f\n", ms);
	/* One launch traced as a graph. */
	CALL(cupti, cuptiActivityEnable, 51);
	CALL(cuda, cuGraphLaunch, executable, stream);
	CALL(cuda, cuCtxSynchronize);
	CALL(cupti, cuptiActivityFlushAll, 0);
	size_t dropped;
	CALL(cupti, cuptiActivityGetNumDroppedRecords, 0, 0, &dropped);
	printf("dropped %zu\n", dropped);
	CALL(cupti, cuptiFinalize);
	CALL(cuda, cuLaunchKernel, kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
	CALL(cuda, cuCtxSynchronize);
	printf("done\n");
	return 0;
}
