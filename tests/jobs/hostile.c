// Jobs that are hard to record, one a word of argv[1]. Each says "ready", then does as it is told line by line.
//
//   threads N          N threads that wait; "leave": they end, and their number is said
//   storm FILE [N]     two threads pass a byte to and fro as fast as they can, one sleeps beneath ever other stacks, one
//                      reads ever other files (FILE0, FILE1 ...); all on one CPU. N more threads begin, one in 20 ms
//   files FILE N       "go": reads N different files, one after the other
//   taken PID          "go": forks a process with this pid, which waits
//   vfork              "go": waits for a child that does not end
//   write FILE         "go": writes to FILE
//   fault FILE         "go": one thread writes to FILE's memory, another changes how that memory is mapped meanwhile
//   submit DEVICE N    "go": has N adjacent blocks of DEVICE read at once
//   library FILE       calls wait_in_library of FILE again and again
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void say(const char *line)
{
	puts(line);
	fflush(stdout);
}

// Waits for a line. The end of the input is the end of the job.
static void await_line(void)
{
	char line[64];
	if (!fgets(line, sizeof(line), stdin))
		exit(0);
}

static void begin_thread(void *(*body)(void *), void *argument, pthread_t *made)
{
	pthread_attr_t small;
	pthread_t thread;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 32768);
	if (pthread_create(&thread, &small, body, argument))
		die("thread");
	if (made)
		*made = thread;
}

static int held[2];
static int woken;

static void *wait_for_end(void *unused)
{
	char byte;
	if (read(held[0], &byte, 1) == 0)
		__sync_fetch_and_add(&woken, 1);
	return unused;
}

static void threads(int number)
{
	pthread_t *made = calloc(number, sizeof(*made));
	if (!made || pipe(held))
		die("pipe");
	for (int i = 0; i < number; i++)
		begin_thread(wait_for_end, 0, &made[i]);
	say("ready");
	await_line();
	close(held[1]);
	for (int i = 0; i < number; i++)
		pthread_join(made[i], 0);
	printf("ended %d\n", woken);
}

static int there[2], back[2];

static void *answer(void *unused)
{
	char byte;
	while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1)
		;
	return unused;
}

// Bit by bit of `way`, one of two functions: as many stacks as numbers.
static __attribute__((noinline)) void left(uint32_t way, int depth);

static __attribute__((noinline)) void right(uint32_t way, int depth)
{
	struct timespec moment = { 0, 200000 };
	if (depth == 0)
		nanosleep(&moment, 0);
	else if (way & 1)
		left(way >> 1, depth - 1);
	else
		right(way >> 1, depth - 1);
	__asm__ volatile("");
}

static void left(uint32_t way, int depth)
{
	struct timespec moment = { 0, 200000 };
	if (depth == 0)
		nanosleep(&moment, 0);
	else if (way & 1)
		left(way >> 1, depth - 1);
	else
		right(way >> 1, depth - 1);
	__asm__ volatile("");
}

static void *wander(void *unused)
{
	for (uint32_t way = 0;; way++)
		left(way, 20);
	return unused;
}

static void read_new_file(const char *name, int number)
{
	char path[256], byte = 0;
	int file;
	snprintf(path, sizeof(path), "%s%d", name, number);
	file = open(path, O_RDWR | O_CREAT, 0600);
	if (file < 0 || write(file, &byte, 1) != 1 || pread(file, &byte, 1, 0) != 1)
		die(path);
	// After it was closed: else the next one may have its number.
	unlink(path);
	close(file);
}

static void *doze(void *unused)
{
	struct timespec moment = { 0, 20000000 };
	for (;;)
		nanosleep(&moment, 0);
	return unused;
}

static int late_threads;

static void *read_files(void *name)
{
	struct timespec moment = { 0, 1000000 };
	for (int i = 0;; i++) {
		read_new_file(name, i);
		nanosleep(&moment, 0);
		if (i % 20 == 0 && i / 20 < late_threads)
			begin_thread(doze, 0, 0);
	}
	return 0;
}

static void storm(char *file, int late)
{
	char byte = 0;
	cpu_set_t cpus;
	late_threads = late;
	// On one CPU, so that all of them lose when its ring is full.
	CPU_ZERO(&cpus);
	CPU_SET(sched_getcpu(), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus) || pipe(there) || pipe(back))
		die("pipe");
	begin_thread(answer, 0, 0);
	begin_thread(wander, 0, 0);
	begin_thread(read_files, file, 0);
	say("ready");
	while (write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1)
		;
}

static void files(const char *name, int number)
{
	say("ready");
	await_line();
	for (int i = 0; i < number; i++) {
		char path[256], byte = 0;
		int file;
		snprintf(path, sizeof(path), "%s%d", name, i);
		file = open(path, O_RDWR | O_CREAT, 0600);
		if (file < 0 || write(file, &byte, 1) != 1)
			die(path);
		close(file);
	}
	say("done");
	await_line();
}

static void taken(pid_t pid)
{
	struct clone_args how = { .exit_signal = SIGCHLD };
	long child;
	how.set_tid = (uintptr_t)&pid;
	how.set_tid_size = 1;
	say("ready");
	await_line();
	child = syscall(SYS_clone3, &how, sizeof(how));
	if (child < 0)
		die("clone3");
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	say(child == pid ? "taken" : "another");
	await_line();
	kill(child, SIGKILL);
	waitpid(child, 0, 0);
}

static void wait_for_child(void)
{
	say("ready");
	await_line();
	say("begins");
	if (!vfork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	say("ended");
}

static void write_once(const char *path)
{
	char byte = 0;
	int file = open(path, O_WRONLY);
	if (file < 0)
		die(path);
	say("ready");
	await_line();
	if (write(file, &byte, 1) != 1)
		die("write");
	say("written");
}

static char *page;

static void *touch_page(void *unused)
{
	*(volatile char *)page = 1;
	return unused;
}

static void *change_page(void *unused)
{
	// After the other one is held up in it. The page stays: whoever is held up may have to begin again when it is let go.
	usleep(300000);
	if (mprotect(page, BLOCK, PROT_READ | PROT_WRITE | PROT_EXEC))
		die("mprotect");
	return unused;
}

static void fault(const char *path)
{
	pthread_t both[2];
	int file = open(path, O_RDWR);
	if (file < 0)
		die(path);
	page = mmap(0, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (page == MAP_FAILED)
		die("mmap");
	*(volatile char *)page;
	say("ready");
	await_line();
	begin_thread(touch_page, 0, &both[0]);
	begin_thread(change_page, 0, &both[1]);
	pthread_join(both[0], 0);
	pthread_join(both[1], 0);
	say("written");
}

static void submit(const char *device, int number)
{
	int file = open(device, O_RDONLY | O_DIRECT);
	aio_context_t context = 0;
	struct iocb *blocks = calloc(number, sizeof(*blocks));
	struct iocb **list = calloc(number, sizeof(*list));
	struct io_event *events = calloc(number, sizeof(*events));
	char *memory;
	long begun = 0, done = 0;
	if (file < 0)
		die(device);
	if (posix_memalign((void **)&memory, BLOCK, (size_t)number * BLOCK) || syscall(SYS_io_setup, number, &context))
		die("io_setup");
	for (int i = 0; i < number; i++) {
		blocks[i].aio_fildes = file;
		blocks[i].aio_lio_opcode = IOCB_CMD_PREAD;
		blocks[i].aio_buf = (uintptr_t)memory + (uintptr_t)i * BLOCK;
		blocks[i].aio_nbytes = BLOCK;
		blocks[i].aio_offset = (int64_t)i * BLOCK;
		list[i] = &blocks[i];
	}
	say("ready");
	await_line();
	while (begun < number) {
		long taken = syscall(SYS_io_submit, context, number - begun, list + begun);
		if (taken <= 0)
			die("io_submit");
		begun += taken;
	}
	say("submitted");
	while (done < number) {
		long got = syscall(SYS_io_getevents, context, 1, number - done, events + done, 0);
		if (got <= 0)
			die("io_getevents");
		for (long i = done; i < done + got; i++)
			if (events[i].res != BLOCK)
				die("read");
		done += got;
	}
	printf("read %ld\n", done);
}

static void library(const char *path)
{
	void *handle = dlopen(path, RTLD_NOW);
	void (*wait)(void) = handle ? (void (*)(void))dlsym(handle, "wait_in_library") : 0;
	if (!wait) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	say("ready");
	for (;;)
		wait();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	char *first = argc > 2 ? argv[2] : "";
	int number = atoi(argc > 3 ? argv[3] : first);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!strcmp(what, "threads"))
		threads(number);
	else if (!strcmp(what, "storm"))
		storm(first, argc > 3 ? number : 0);
	else if (!strcmp(what, "files"))
		files(first, number);
	else if (!strcmp(what, "taken"))
		taken(number);
	else if (!strcmp(what, "vfork"))
		wait_for_child();
	else if (!strcmp(what, "write"))
		write_once(first);
	else if (!strcmp(what, "fault"))
		fault(first);
	else if (!strcmp(what, "submit"))
		submit(first, number);
	else if (!strcmp(what, "library"))
		library(first);
	else
		return 2;
	return 0;
}
