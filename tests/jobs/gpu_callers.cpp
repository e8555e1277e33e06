// Launches from callers that a stack tells apart, some often and some rarely.
//
//   g++ -O1 -g -fno-omit-frame-pointer gpu_callers.cpp -o gpu_callers -ldl
//   gpu_callers SECONDS READY_FILE
//
// A round is 200 launches of "frequent" by launch_often(), and of "shared" 19 by launch_shared_often() and one by
// launch_shared_seldom(). Every tenth of a second launch_rarely() launches "rare". READY_FILE is made once it runs.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define CALLER extern "C" __attribute__((noinline)) void

static void *cuda, *stream, *module;
static volatile int sink;

static uint64_t now_ns()
{
	timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

template <typename... Arguments> static void call(const char *name, Arguments... arguments)
{
	auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(cuda, name));
	int code = function ? function(arguments...) : -1;
	if (code) {
		fprintf(stderr, "%s: %d\n", name, code);
		exit(3);
	}
}

typedef int (*Launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
		      void **);
static Launch driver_launch;

static inline __attribute__((always_inline)) void launch(void *kernel)
{
	uint64_t duration_ns = 1000;
	void *parameters[] = {&duration_ns};
	if (driver_launch(kernel, 1, 1, 1, 32, 1, 1, 0, stream, parameters, nullptr))
		exit(3);
	// Not the last thing that is done: else this would be a jump, and the caller in no stack.
	sink = sink + 1;
}

static void *frequent, *shared, *rare;

CALLER launch_often()
{
	for (int i = 0; i < 200; i++)
		launch(frequent);
}

CALLER launch_shared_often()
{
	for (int i = 0; i < 19; i++)
		launch(shared);
}

CALLER launch_shared_seldom()
{
	launch(shared);
}

CALLER launch_rarely()
{
	launch(rare);
}

// Deeper in the stack than its sibling.
CALLER through_another()
{
	launch_shared_seldom();
	sink = sink + 1;
}

static const char *const NAMES[] = {"frequent", "shared", "rare"};

int main(int, char **arguments)
{
	uint64_t end_ns = now_ns() + uint64_t(atof(arguments[1]) * 1e9), rarely_ns = 0;
	cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
	if (!cuda)
		return 2;
	driver_launch = reinterpret_cast<Launch>(dlsym(cuda, "cuLaunchKernel"));
	call("cuInit", 0u);
	void *context;
	call("cuDevicePrimaryCtxRetain", &context, 0);
	call("cuCtxSetCurrent", context);
	char image[2048];
	int length = snprintf(image, sizeof(image), ".version 7.0\n.target sm_70\n.address_size 64\n");
	for (auto name : NAMES)
		length += snprintf(image + length, sizeof(image) - length,
				   ".visible .entry %s(.param .u64 duration_ns) {\n  ret;\n}\n", name);
	call("cuModuleLoadData", &module, (const char *)image);
	call("cuModuleGetFunction", &frequent, module, "frequent");
	call("cuModuleGetFunction", &shared, module, "shared");
	call("cuModuleGetFunction", &rare, module, "rare");
	call("cuStreamCreate", &stream, 1u);
	close(open(arguments[2], O_CREAT | O_WRONLY, 0644));
	while (now_ns() < end_ns) {
		launch_often();
		launch_shared_often();
		through_another();
		if (now_ns() >= rarely_ns) {
			launch_rarely();
			rarely_ns = now_ns() + 100000000;
		}
		call("cuStreamSynchronize", stream);
		usleep(5000);
	}
	return 0;
}
