// What the truth tests record: a process that does one known thing and prints what it did, by its own clock.
//
// It waits for a line on standard input, so that the recording has begun, and prints lines of a word and numbers.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef long long ns;

static ns now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long tid(void)
{
	return syscall(SYS_gettid);
}

static void pause_ns(ns length)
{
	struct timespec t = { length / 1000000000, length % 1000000000 };
	clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

// The scheduler's own count of this thread: time on a CPU, time on a run queue.
static void schedstat(const char *word)
{
	char path[64];
	unsigned long long ran, waited;
	FILE *f;
	snprintf(path, sizeof(path), "/proc/self/task/%ld/schedstat", tid());
	// Brings the count up to now: else it is as old as the last tick.
	pause_ns(1000);
	f = fopen(path, "r");
	if (f && fscanf(f, "%llu %llu", &ran, &waited) == 2)
		printf("%s %ld %lld %llu %llu\n", word, tid(), now(), ran, waited);
	if (f)
		fclose(f);
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void spin_cpu(ns length)
{
	struct timespec t;
	ns begin, at;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	begin = t.tv_sec * 1000000000LL + t.tv_nsec;
	do {
		for (volatile int i = 0; i < 20000; i++)
			;
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
		at = t.tv_sec * 1000000000LL + t.tv_nsec;
	} while (at - begin < length);
}

static void do_sleep(int times, ns length)
{
	for (int i = 0; i < times; i++) {
		ns begin = now();
		pause_ns(length);
		printf("slept %lld %lld\n", begin, now());
	}
}

static void do_read(const char *path, int times, size_t size)
{
	char *buffer = malloc(size);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		die(path);
	for (int i = 0; i < times; i++)
		if (read(fd, buffer, size) != (ssize_t)size)
			die("read");
	if (pread(fd, buffer, 7, 3) != 7)
		die("pread");
	close(fd);
}

static void do_direct(const char *path, int times, size_t size)
{
	void *buffer;
	int fd = open(path, O_RDONLY | O_DIRECT);
	if (fd < 0)
		die(path);
	if (posix_memalign(&buffer, 4096, size))
		die("memory");
	for (int i = 0; i < times; i++) {
		ns begin = now();
		if (pread(fd, buffer, size, (off_t)i * size) != (ssize_t)size)
			die("pread");
		printf("read %lld %lld\n", begin, now());
	}
}

static int ends[2];

static void *pipe_writer(void *arg)
{
	printf("writer %ld\n", tid());
	for (long i = 0; i < (long)arg; i++) {
		pause_ns(10000000);
		if (write(ends[1], "x", 1) != 1)
			die("write");
	}
	return NULL;
}

static void do_pipe(long times)
{
	pthread_t thread;
	char c;
	if (pipe(ends))
		die("pipe");
	printf("reader %ld\n", tid());
	pthread_create(&thread, NULL, pipe_writer, (void *)times);
	for (long i = 0; i < times; i++)
		if (read(ends[0], &c, 1) != 1)
			die("read");
	pthread_join(thread, NULL);
}

static int word;

static void *futex_waker(void *arg)
{
	printf("waker %ld\n", tid());
	for (long i = 1; i <= (long)arg; i++) {
		pause_ns(10000000);
		__atomic_store_n(&word, i, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &word, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
	return NULL;
}

static void do_futex(long times)
{
	pthread_t thread;
	printf("futex %llu\n", (unsigned long long)(uintptr_t)&word);
	printf("sleeper %ld\n", tid());
	pthread_create(&thread, NULL, futex_waker, (void *)times);
	for (long i = 0; i < times; i++)
		while (__atomic_load_n(&word, __ATOMIC_SEQ_CST) <= i)
			syscall(SYS_futex, &word, FUTEX_WAIT, i, NULL, NULL, 0);
	pthread_join(thread, NULL);
}

// Runs, and notes when it did not: for a stop.
static void do_gaps(ns length, ns gap)
{
	ns last = now(), end = last + length, at;
	do {
		at = now();
		if (at - last >= gap)
			printf("gap %lld %lld\n", last, at);
		last = at;
	} while (at < end);
}

static void do_touch(long pages)
{
	struct rusage before, after;
	char *memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	madvise(memory, pages * 4096, MADV_NOHUGEPAGE);
	getrusage(RUSAGE_THREAD, &before);
	for (long i = 0; i < pages; i++)
		memory[i * 4096] = 1;
	getrusage(RUSAGE_THREAD, &after);
	printf("faults %ld %ld\n", after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt);
	pause_ns(20000000);
}

// Touches a file that is not in memory through a mapping.
static void do_map(const char *path, long pages)
{
	struct rusage before, after;
	volatile char sum = 0;
	int fd = open(path, O_RDONLY);
	char *memory;
	if (fd < 0)
		die(path);
	fsync(fd);
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		die("fadvise");
	memory = mmap(NULL, pages * 4096, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	madvise(memory, pages * 4096, MADV_RANDOM);
	getrusage(RUSAGE_THREAD, &before);
	for (long i = 0; i < pages; i++)
		sum += memory[i * 4096];
	getrusage(RUSAGE_THREAD, &after);
	printf("faults %ld %ld\n", after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt);
}

static void *short_thread(void *arg)
{
	printf("thread %ld\n", tid());
	pause_ns(5000000);
	return arg;
}

// A thread that ends, a child that ends, a child that becomes another program.
static void do_family(const char *self)
{
	pthread_t thread;
	pid_t pid;
	printf("main %ld\n", tid());
	pthread_create(&thread, NULL, short_thread, NULL);
	pthread_join(thread, NULL);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		pause_ns(5000000);
		_exit(0);
	}
	printf("forked %d\n", pid);
	waitpid(pid, NULL, 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		execl(self, "renamed", "nap", NULL);
		_exit(1);
	}
	printf("execed %d\n", pid);
	waitpid(pid, NULL, 0);
}

// Some of everything, for the sum: waits, running, both with others on the CPU.
static void *mixed(void *arg)
{
	ns unit = 2000000;
	schedstat("begin");
	for (long i = 0; i < (long)arg; i++) {
		spin_cpu(unit);
		pause_ns(unit / 2);
		spin_cpu(unit / 4);
		sched_yield();
	}
	schedstat("end");
	return NULL;
}

static void do_mixed(int threads, long times)
{
	pthread_t thread[16];
	for (int i = 0; i < threads && i < 16; i++)
		pthread_create(&thread[i], NULL, mixed, (void *)times);
	for (int i = 0; i < threads && i < 16; i++)
		pthread_join(thread[i], NULL);
}

// Objects of several kinds: moved through, or waited for until a time is over.
static void do_objects(const char *folder)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	struct itimerspec timer = { .it_value = { 0, 5000000 } };
	struct epoll_event event = { .events = EPOLLIN };
	int server, client, accepted, file, epoll, timerfd;
	struct pollfd poll_for;
	char path[128];
	uint64_t times;
	char c;
	snprintf(name.sun_path, sizeof(name.sun_path), "%s/socket", folder);
	server = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(server, (struct sockaddr *)&name, sizeof(name)) || listen(server, 1))
		die("bind");
	client = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(client, (struct sockaddr *)&name, sizeof(name)))
		die("connect");
	accepted = accept(server, NULL, NULL);
	if (write(accepted, "ab", 2) != 2 || read(client, &c, 1) != 1 || read(client, &c, 1) != 1)
		die("unix");
	snprintf(path, sizeof(path), "%s/gone", folder);
	file = open(path, O_RDWR | O_CREAT, 0600);
	unlink(path);
	if (write(file, "0123456789", 10) != 10 || lseek(file, 0, SEEK_SET) || sendfile(accepted, file, NULL, 10) != 10)
		die("sendfile");
	timerfd = timerfd_create(CLOCK_MONOTONIC, 0);
	timerfd_settime(timerfd, 0, &timer, NULL);
	if (read(timerfd, &times, sizeof(times)) != sizeof(times))
		die("timerfd");
	epoll = epoll_create1(0);
	epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event);
	epoll_wait(epoll, &event, 1, 5);
	poll_for.fd = server;
	poll_for.events = POLLIN;
	poll(&poll_for, 1, 5);
	printf("polled %d\n", server);
}

// The kernel's own account of a connection: sent without repetitions, received, sent again, round trip in us, delivery rate.
static void tcp_account(int fd)
{
	unsigned char info[256] = { 0 };
	socklen_t length = sizeof(info);
	uint64_t sent, again, received, rate;
	uint32_t retransmits, rtt;
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length) || length < 216)
		die("TCP_INFO");
	// Offsets in struct tcp_info: C libraries have older ones.
	memcpy(&rtt, info + 68, 4);
	memcpy(&retransmits, info + 100, 4);
	memcpy(&received, info + 128, 8);
	memcpy(&rate, info + 160, 8);
	memcpy(&sent, info + 200, 8);
	memcpy(&again, info + 208, 8);
	printf("tcp %llu %llu %u %u %llu\n", (unsigned long long)(sent - again), (unsigned long long)received,
	       retransmits, rtt, (unsigned long long)rate);
}

static void do_client(const char *address, int port, long bytes)
{
	static char buffer[1 << 16];
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	inet_pton(AF_INET, address, &to.sin_addr);
	// The server may not listen yet.
	for (int tries = 0; connect(fd, (struct sockaddr *)&to, sizeof(to)); tries++) {
		if (tries > 200)
			die("connect");
		close(fd);
		pause_ns(10000000);
		fd = socket(AF_INET, SOCK_STREAM, 0);
	}
	// Some congestion controls hardly notice a loss.
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
	while (bytes > 0) {
		ssize_t n = send(fd, buffer, bytes < (long)sizeof(buffer) ? bytes : (long)sizeof(buffer), 0);
		if (n <= 0)
			die("send");
		bytes -= n;
	}
	shutdown(fd, SHUT_WR);
	while (recv(fd, buffer, sizeof(buffer), 0) > 0)
		;
	tcp_account(fd);
	close(fd);
}

// Takes all, sends five bytes back, and tells nothing.
static void do_server(int port)
{
	static char buffer[1 << 16];
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port) };
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0), client;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 1))
		die("bind");
	client = accept(fd, NULL, NULL);
	while (recv(client, buffer, sizeof(buffer), 0) > 0)
		;
	if (send(client, "hello", 5, 0) != 5)
		die("send");
	close(client);
}

int main(int argc, char **argv)
{
	char line[16];
	const char *what = argc > 1 ? argv[1] : "";
	long a = argc > 2 ? atol(argv[2]) : 0, b = argc > 3 ? atol(argv[3]) : 0, c = argc > 4 ? atol(argv[4]) : 0;
	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	if (!strcmp(what, "nap")) {
		pause_ns(5000000);
		return 0;
	}
	if (!fgets(line, sizeof(line), stdin))
		return 1;
	if (!strcmp(what, "sleep"))
		do_sleep(a, b);
	else if (!strcmp(what, "read"))
		do_read(argv[2], b, c);
	else if (!strcmp(what, "direct"))
		do_direct(argv[2], b, c);
	else if (!strcmp(what, "pipe"))
		do_pipe(a);
	else if (!strcmp(what, "futex"))
		do_futex(a);
	else if (!strcmp(what, "gaps"))
		do_gaps(a, b);
	else if (!strcmp(what, "touch"))
		do_touch(a);
	else if (!strcmp(what, "map"))
		do_map(argv[2], b);
	else if (!strcmp(what, "family"))
		do_family(argv[0]);
	else if (!strcmp(what, "mixed"))
		do_mixed(a, b);
	else if (!strcmp(what, "objects"))
		do_objects(argv[2]);
	else if (!strcmp(what, "client"))
		do_client(argv[2], b, c);
	else if (!strcmp(what, "server"))
		do_server(a);
	else if (!strcmp(what, "burn")) {
		schedstat("begin");
		spin_cpu(a);
		schedstat("end");
	} else
		return 2;
	return 0;
}
