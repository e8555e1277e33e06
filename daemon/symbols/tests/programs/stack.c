// Prints the addresses of its own stack by frame pointers, innermost first: that of the main thread, then that of a second
// thread. Then it does as it is told: each line on its input is a library to load, and gets an address in it as answer.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct frame {
	struct frame *next;
	void *ret;
};

static __attribute__((noinline)) void print_stack(void *pc, struct frame *frame)
{
	printf("%p", pc);
	for (int depth = 0; depth < 32; depth++) {
		struct frame *next = frame->next;
		if (!frame->ret)
			break;
		printf(" %p", frame->ret);
		if (next <= frame || (uintptr_t)next - (uintptr_t)frame > 1 << 20)
			break;
		frame = next;
	}
	printf("\n");
	fflush(stdout);
}

static inline __attribute__((always_inline)) void innermost_inlined(void)
{
	void *pc;
	__asm__ volatile("lea -7(%%rip), %0" : "=r"(pc)); // line: pc
	print_stack(pc, __builtin_frame_address(0));
}

static inline __attribute__((always_inline)) void middle_inlined(void)
{
	innermost_inlined(); // line: middle
	__asm__ volatile("");
}

__attribute__((noinline)) void outer_function(void)
{
	middle_inlined(); // line: outer
	__asm__ volatile("");
}

static void *thread(void *unused)
{
	outer_function();
	__asm__ volatile("");
	return unused;
}

// Code without a file, and the perf map that names it, under the id that this process has in its own namespace.
static void write_code(void)
{
	char path[64], *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FILE *map;

	code[0] = (char)0xc3;
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	fprintf(map, "%lx 40 py::written_code:/app/x.py\n", (long)code);
	fclose(map);
	printf("%p\n", (void *)(code + 8));
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[256];
	pthread_t other;

	outer_function(); // line: main
	pthread_create(&other, 0, thread, 0);
	pthread_join(other, 0);
	if (argc > 1 && !strcmp(argv[1], "jit"))
		write_code();
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		void *library = dlopen(line, RTLD_NOW);
		printf("%p\n", library ? dlsym(library, "loaded_later") : 0);
		fflush(stdout);
	}
	return 0;
}
