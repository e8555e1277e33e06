/* A job that is launched: initialises CUDA, launches kernels, and does as it is told by lines on its standard input. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
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
	for (;;) {
		printf("%u\n", launch(100, names, 2));
		fflush(stdout);
		switch (byte = getchar()) {
		case '\n':
			break;
		case 'f': {
			/* A child has no agent, but all of its memory, and what was registered for the end. */
			int status = -1;
			pid_t child = fork();

			if (!child)
				exit(launch(1, names, 2) ? 0 : 5);
			if (waitpid(child, &status, 0) != child || status)
				return 6;
			break;
		}
		default:
			/* The last kernels, for which no flush comes any more. */
			launch(100, names, 2);
			exit(0);
		}
	}
}
