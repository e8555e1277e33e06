/* Calls of CUDA's runtime, a full queue, a fork, and a library that CUDA loads into the process.
 *
 * Compiled twice: as a program, and with -DINJECTED as the library that CUDA_INJECTION64_PATH names, which profiles the
 * program. argv of the program: name of libcudart.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uintptr_t handle;

#ifdef INJECTED
static void *cupti;

static void requested(uint8_t **buffer, size_t *size, size_t *most)
{
	*most = 0;
	*size = 1 << 16;
	*buffer = aligned_alloc(8, *size);
}

static void completed(handle context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
	(void)context, (void)stream, (void)size;
	uint8_t *record = NULL;
	while (((unsigned (*)())dlsym(cupti, "cuptiActivityGetNextRecord"))(buffer, valid, &record) == 0) {
		uint32_t fields[12];
		memcpy(fields, record, sizeof(fields));
		if (fields[0] == 4 || fields[0] == 5)
			printf("call %u %u %u\n", fields[0], fields[1], fields[8]);
		if (fields[0] == 10) {
			memcpy(fields, record + 92, 4);
			printf("kernel %u\n", fields[0]);
		}
		if (fields[0] == 17)
			printf("overhead %u\n", fields[1]);
	}
	free(buffer);
}

static void at_exit(void)
{
	((unsigned (*)())dlsym(cupti, "cuptiActivityFlushAll"))(1);
	fflush(stdout);
}

int InitializeInjection(void)
{
	printf("injected\n");
	cupti = dlopen("libcupti.so", RTLD_NOW);
	((unsigned (*)())dlsym(cupti, "cuptiActivityRegisterCallbacks"))(requested, completed);
	int kinds[] = {4, 5, 10, 17};
	for (int i = 0; i < 4; i++)
		((unsigned (*)())dlsym(cupti, "cuptiActivityEnable"))(kinds[i]);
	atexit(at_exit);
	return 1;
}
#else
struct dim3 {
	unsigned x, y, z;
};

static void *cudart;
#define RT(name, ...) ((unsigned (*)())dlsym(cudart, name))(__VA_ARGS__)

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	cudart = dlopen(argv[1], RTLD_NOW);
	if (!cudart)
		return fprintf(stderr, "%s\n", dlerror()), 2;
	handle library, kernel, stream;
	uint64_t duration_ns = 1000000;
	void *parameters[] = {&duration_ns};
	unsigned code = RT("cudaLibraryLoadData", &library, "ptx", NULL, NULL, 0, NULL, NULL, 0) |
			RT("cudaLibraryGetKernel", &kernel, library, "gemm") |
			RT("cudaStreamCreateWithFlags", &stream, 1);
	unsigned (*launch)(handle, struct dim3, struct dim3, void **, size_t, handle) =
		(void *)dlsym(cudart, "cudaLaunchKernel");
	struct dim3 one = {1, 1, 1};
	for (int i = 0; i < 6; i++)
		code |= launch(kernel, one, one, parameters, 0, stream);
	printf("not_ready %u\n", RT("cudaStreamQuery", stream));
	code |= RT("cudaStreamSynchronize", stream);
	printf("code %u %u\n", code, RT("cudaGetLastError"));
	unsigned bad = RT("cudaFree", 12345ull), last = RT("cudaGetLastError"), again = RT("cudaGetLastError");
	printf("bad %u %u %u\n", bad, last, again);
	fflush(stdout);
	if (fork() == 0) {
		printf("child %u\n", RT("cudaDeviceSynchronize"));
		fflush(stdout);
		_exit(0);
	}
	wait(NULL);
	return 0;
}
#endif
