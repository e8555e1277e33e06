/* A libcuda that does nothing but what CUDA does for CUDA_INJECTION64_PATH. */
#include <dlfcn.h>
#include <stdlib.h>

__attribute__((visibility("default"))) int cuInit(unsigned flags)
{
	const char *path = getenv("CUDA_INJECTION64_PATH");
	void *library = path ? dlopen(path, RTLD_NOW) : NULL;
	int (*initialize)(void) = library ? (int (*)(void))dlsym(library, "InitializeInjection") : NULL;

	(void)flags;
	return initialize && initialize() != 1;
}
