/* A job that is launched: initialises CUDA, launches kernels, and does as it is told by lines on its standard input. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static const char *const names[] = { "first", "second" };
	uint32_t (*launch)(uint32_t, const char *const *, uint32_t);
	int (*init)(unsigned), byte;
	void *cuda, *cupti;

	if (argc != 3 || !(cuda = dlopen(argv[1], RTLD_NOW)))
		return 2;
	init = (int (*)(unsigned))dlsym(cuda, "cuInit");
	if (init(0))
		return 3;
	/* Here for its function only: the agent has loaded it. */
	if (!(cupti = dlopen(argv[2], RTLD_NOW)))
		return 4;
	launch = (uint32_t(*)(uint32_t, const char *const *, uint32_t))dlsym(cupti, "fake_launch");
	do {
		printf("%u\n", launch(100, names, 2));
		fflush(stdout);
		byte = getchar();
	} while (byte == '\n');
	return 0;
}
