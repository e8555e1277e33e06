/* Several subscribers (13.2 and later), each with kinds and buffers of its own. argv: name of libcupti. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uintptr_t handle;
static void *cuda, *cupti;
#define CUDA(name, ...) ((unsigned (*)())dlsym(cuda, name))(__VA_ARGS__)
#define CUPTI(name, ...) ((unsigned (*)())dlsym(cupti, name))(__VA_ARGS__)

static int kernels[3], others[3];

static int count(int who, uint8_t *buffer, size_t valid)
{
	uint8_t *record = NULL;
	while (CUPTI("cuptiActivityGetNextRecord", buffer, valid, &record) == 0) {
		uint32_t kind;
		memcpy(&kind, record, 4);
		kernels[who] += kind == 10;
		others[who] += kind != 10;
	}
	free(buffer);
	return 0;
}

static void requested(uint8_t **buffer, size_t *size, size_t *most, size_t *info)
{
	*most = 0;
	*size = 1 << 16;
	*buffer = aligned_alloc(8, *size);
	if (*info != sizeof(size_t))
		printf("info %zu\n", *info);
}

static void requested_old(uint8_t **buffer, size_t *size, size_t *most)
{
	size_t info = sizeof(size_t);
	requested(buffer, size, most, &info);
}

static void first(uint8_t *buffer, size_t size, size_t valid, size_t *info)
{
	if (*info != 32)
		printf("info %zu\n", *info);
	count(0, buffer, valid);
}

static void second(uint8_t *buffer, size_t size, size_t valid, size_t *info)
{
	count(1, buffer, valid);
}

static void old(handle context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
	count(2, buffer, valid);
}

static handle stream, kernel;

static void launch(void)
{
	uint64_t duration_ns = 1000;
	void *parameters[] = {&duration_ns};
	CUDA("cuLaunchKernel", kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, NULL);
	CUDA("cuStreamSynchronize", stream);
	CUPTI("cuptiActivityFlushAll", 0);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	cuda = dlopen("libcuda.so.1", RTLD_NOW);
	cupti = dlopen(argv[1], RTLD_NOW);
	if (!cuda || !cupti)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	handle context, module, a, b, c;
	CUDA("cuInit", 0);
	CUDA("cuDevicePrimaryCtxRetain", &context, 0);
	CUDA("cuCtxSetCurrent", context);
	CUDA("cuModuleLoadData", &module, "ptx");
	CUDA("cuModuleGetFunction", &kernel, module, "gemm");
	CUDA("cuStreamCreate", &stream, 1);
	struct {
		size_t size;
		const char *name;
		char *old_name;
		size_t old_size;
		uint8_t many;
	} parameters = {40, "a", NULL, 0, 1};
	printf("subscribe %u", CUPTI("cuptiSubscribe_v2", &a, NULL, NULL, &parameters));
	printf(" %u", CUPTI("cuptiSubscribe_v2", &b, NULL, NULL, &parameters));
	printf(" %u\n", CUPTI("cuptiSubscribe_v2", &c, NULL, NULL, NULL));
	CUPTI("cuptiActivityRegisterCallbacks_v2", a, requested, first);
	CUPTI("cuptiActivityRegisterCallbacks_v2", b, requested, second);
	CUPTI("cuptiActivityEnable_v2", a, 10, NULL);
	CUPTI("cuptiActivityEnable_v2", b, 10, NULL);
	CUPTI("cuptiActivityEnableDriverApi_v2", b, 307, 1);
	launch();
	printf("both %d %d %d %d\n", kernels[0], others[0], kernels[1], others[1]);
	/* A profiler that knows of no subscribers, while there are some and when they are gone. */
	CUPTI("cuptiActivityRegisterCallbacks", requested_old, old);
	CUPTI("cuptiActivityEnable", 10);
	launch();
	printf("while %d\n", kernels[2]);
	CUPTI("cuptiUnsubscribe", a);
	CUPTI("cuptiUnsubscribe", b);
	if (c)
		CUPTI("cuptiUnsubscribe", c);
	launch();
	printf("after %d\n", kernels[2]);
	CUPTI("cuptiFinalize");
	CUPTI("cuptiActivityRegisterCallbacks", requested_old, old);
	CUPTI("cuptiActivityEnable", 10);
	launch();
	printf("finalized %d\n", kernels[2]);
	return 0;
}
