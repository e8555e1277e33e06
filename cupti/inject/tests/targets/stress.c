// A busy program that checks itself: allocation, libraries loaded and unloaded, children, signals with and without
// SA_RESTART, epoll, timers, timed waits, threads that come and go, registers across system calls.
//
// A line on standard input is answered with "status WRONGS NAME=COUNT ..."; its end ends the program.
// Arguments: how many milliseconds threads rest between rounds (0: never), how many threads burn a CPU, and whether a
// thread sets the group again and again: glibc then has every thread handle a signal, which ends calls with EINTR.
#include "common.h"
#include "registers.h"
#include <dlfcn.h>

static long rest_ms;
static int setting_group;
#define INTERRUPTED(n) (setting_group && (n) == -1 && errno == EINTR)
static atomic_int stopping;
#define EACH(X) X(malloc) X(dlopen) X(fork) X(interrupt) X(epoll) X(epoll_timed) X(sleep) X(poll) X(receive) \
	X(condition) X(semaphore) X(timer) X(threads) X(registers) X(pipe) X(setgid)
#define COUNTER(name) static atomic_long name##_rounds;
EACH(COUNTER)

static void block_signals(void)
{
	sigset_t all;
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, 0);
}

// What holds around each round of every thread.
struct round { uint64_t mask; };
static struct round begin(void) { return (struct round){ own_mask() }; }
static void end(struct round round, atomic_long *counter, const char *name)
{
	EXPECT(own_mask() == round.mask, "%s: signal mask is %lx, was %lx", name, own_mask(), round.mask);
	++*counter;
	if (rest_ms)
		nanosleep(&(struct timespec){ 0, rest_ms * 1000000 }, 0);
}
#define LOOP(name) for (struct round round_; !stopping && (round_ = begin(), 1); end(round_, &name##_rounds, #name))

static void *do_malloc(void *seed)
{
	block_signals();
	unsigned state = (unsigned)(uintptr_t)seed;
	unsigned char *blocks[64] = { 0 };
	size_t sizes[64];
	LOOP(malloc) {
		for (int i = 0; i < 200; i++) {
			state = state * 1103515245 + 12345;
			int at = state >> 16 & 63;
			if (blocks[at]) {
				EXPECT(blocks[at][0] == at && blocks[at][sizes[at] - 1] == at, "malloc: block changed");
				free(blocks[at]);
			}
			sizes[at] = 1 + (state >> 8 & 0xffff);
			blocks[at] = malloc(sizes[at]);
			memset(blocks[at], at, sizes[at]);
		}
	}
	return 0;
}

static void *do_dlopen(void *unused)
{
	block_signals();
	LOOP(dlopen) {
		void *library = dlopen("libresolv.so.2", RTLD_NOW);
		EXPECT(library && dlsym(library, "inet_net_pton"), "dlopen: %s", dlerror());
		if (library)
			dlclose(library);
		// The loader's lock is not fair: without this, nobody else gets it for seconds.
		nanosleep(&(struct timespec){ 0, 300000 }, 0);
	}
	return unused;
}

static void *do_fork(void *unused)
{
	block_signals();
	LOOP(fork) {
		pid_t child = fork();
		if (!child) {
			free(malloc(1000));
			_exit(42);
		}
		int status = 0;
		pid_t waited;
		errno = 0;
		waited = waitpid(child, &status, 0);
		EXPECT(waited == child && WIFEXITED(status) && WEXITSTATUS(status) == 42, "fork: %d errno %d status %x", waited, errno, status);
		nanosleep(&(struct timespec){ 0, 2000000 }, 0);
	}
	return unused;
}

// A call that only a signal ends, and must.
static pthread_t interrupted_thread;
static atomic_long interrupt_wanted;
static __thread volatile sig_atomic_t interruptions;
static void on_interrupt(int signal) { (void)signal; interruptions++; }
static void *do_interrupt(void *unused)
{
	block_signals();
	int pipes[2];
	if (pipe(pipes)) abort();
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGUSR1);
	LOOP(interrupt) {
		int before = interruptions;
		// Unblocked only within the call, so that the signal cannot come before it.
		sigset_t inside;
		pthread_sigmask(SIG_SETMASK, 0, &inside);
		sigdelset(&inside, SIGUSR1);
		struct pollfd none = { pipes[0], POLLIN, 0 };
		interrupt_wanted++;
		errno = 0;
		int n = ppoll(&none, 1, 0, &inside);
		EXPECT(n == -1 && errno == EINTR && (interruptions == before + 1 || setting_group), "interrupt: %d errno %d", n, errno);
	}
	return unused;
}
static void *do_interrupting(void *unused)
{
	block_signals();
	for (long sent = 0; !stopping;) {
		if (interrupt_wanted > sent) {
			sent++;
			nanosleep(&(struct timespec){ 0, 3000000 }, 0);
			pthread_kill(interrupted_thread, SIGUSR1);
		} else {
			nanosleep(&(struct timespec){ 0, 200000 }, 0);
		}
	}
	return unused;
}

static int event_fd, event_epoll, empty_epoll;
static void *do_epoll(void *unused)
{
	block_signals();
	LOOP(epoll) {
		struct epoll_event event;
		int n = epoll_wait(event_epoll, &event, 1, -1);
		EXPECT(n == 1 || stopping || INTERRUPTED(n), "epoll: %d errno %d", n, errno);
		if (n != 1)
			continue;
		uint64_t value = 0;
		long got = read(event_fd, &value, 8);
		EXPECT((got == 8 && value >= 1) || stopping, "epoll: read %ld", got);
	}
	return unused;
}
static void *do_posting(void *unused)
{
	block_signals();
	while (!stopping) {
		uint64_t one = 1;
		if (write(event_fd, &one, 8) != 8) abort();
		nanosleep(&(struct timespec){ 0, 1500000 }, 0);
	}
	return unused;
}

#define LASTED(ms, name) EXPECT(setting_group || now_ns() - began >= (ms) * 1000000ll - 100000, "%s: over after %ld us", name, (long)((now_ns() - began) / 1000))

static void *do_epoll_timed(void *unused)
{
	block_signals();
	LOOP(epoll_timed) {
		struct epoll_event event;
		int64_t began = now_ns();
		int n = epoll_wait(empty_epoll, &event, 1, 11);
		EXPECT(n == 0 || INTERRUPTED(n), "epoll_timed: %d errno %d", n, errno);
		LASTED(11, "epoll_timed");
	}
	return unused;
}

static void *do_sleep(void *unused)
{
	block_signals();
	LOOP(sleep) {
		int64_t began = now_ns();
		struct timespec left = { 0, 7 }, time = { 0, 5000000 };
		errno = 4242;
		int n = nanosleep(&time, &left);
		EXPECT((n == 0 && errno == 4242) || INTERRUPTED(n), "sleep: %d errno %d", n, errno);
		LASTED(5, "sleep");
	}
	return unused;
}

static void *do_poll(void *unused)
{
	block_signals();
	LOOP(poll) {
		int64_t began = now_ns();
		errno = 4242;
		int n = poll(0, 0, 7);
		EXPECT((n == 0 && errno == 4242) || INTERRUPTED(n), "poll: %d errno %d", n, errno);
		LASTED(7, "poll");
	}
	return unused;
}

static void *do_receive(void *unused)
{
	block_signals();
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0, 9000 }, sizeof(struct timeval));
	LOOP(receive) {
		char byte;
		long n = recv(pair[0], &byte, 1, 0);
		EXPECT((n == -1 && errno == EAGAIN) || INTERRUPTED(n), "receive: %ld errno %d", n, errno);
	}
	return unused;
}

static void *do_condition(void *unused)
{
	block_signals();
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
	LOOP(condition) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 6000000;
		if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
		pthread_mutex_lock(&mutex);
		int n = pthread_cond_timedwait(&condition, &mutex, &until);
		pthread_mutex_unlock(&mutex);
		EXPECT(n == ETIMEDOUT, "condition: %d", n);
	}
	return unused;
}

static sem_t ping, pong;
static void *do_semaphore(void *unused)
{
	block_signals();
	LOOP(semaphore) {
		sem_post(&ping);
		int n = sem_wait(&pong);
		EXPECT(n == 0, "semaphore: %d errno %d", n, errno);
	}
	sem_post(&ping);
	return unused;
}
static void *do_answering(void *unused)
{
	block_signals();
	while (!stopping) {
		EXPECT(sem_wait(&ping) == 0, "semaphore: answer errno %d", errno);
		sem_post(&pong);
	}
	sem_post(&pong);
	return unused;
}

static atomic_long alarms;
static void on_alarm(int signal) { (void)signal; alarms++; }
// The one thread to which alarms come: calls restart.
static void *do_timer(void *unused)
{
	block_signals();
	sigset_t one;
	sigemptyset(&one);
	sigaddset(&one, SIGALRM);
	pthread_sigmask(SIG_UNBLOCK, &one, 0);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	timerfd_settime(timer, 0, &(struct itimerspec){ { 0, 4000000 }, { 0, 4000000 } }, 0);
	LOOP(timer) {
		uint64_t ticks = 0;
		long n = read(timer, &ticks, 8);
		EXPECT(n == 8 && ticks >= 1, "timer: %ld errno %d", n, errno);
	}
	return unused;
}

static void *add_one(void *number) { return (char *)number + 1; }
static void *do_threads(void *unused)
{
	block_signals();
	LOOP(threads) {
		pthread_t threads[4];
		for (uintptr_t i = 0; i < 4; i++)
			if (pthread_create(&threads[i], 0, add_one, (void *)i)) WRONG("threads: create");
		for (uintptr_t i = 0; i < 4; i++) {
			void *result = 0;
			EXPECT(pthread_join(threads[i], &result) == 0 && result == (void *)(i + 1), "threads: %p", result);
		}
		nanosleep(&(struct timespec){ 0, 1000000 }, 0);
	}
	return unused;
}

static void *do_registers(void *unused)
{
	block_signals();
	unsigned seed = 1;
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) abort();
	LOOP(registers) {
		long n = checked_call(SYS_poll, 0, 0, 5, seed++);
		EXPECT(n == 0 || INTERRUPTED(n), "registers: %ld errno %d", n, errno);
	}
	return unused;
}

static int there[2], back[2];
static void *do_pipe(void *unused)
{
	block_signals();
	unsigned char byte = 0, answer;
	LOOP(pipe) {
		byte++;
		if (write(there[1], &byte, 1) != 1) abort();
		long n = read(back[0], &answer, 1);
		EXPECT(n == 1 && answer == byte, "pipe: %ld errno %d", n, errno);
		nanosleep(&(struct timespec){ 0, 500000 }, 0);
	}
	close(there[1]);
	return unused;
}
static void *do_echoing(void *unused)
{
	block_signals();
	unsigned char byte;
	long n;
	while ((n = read(there[0], &byte, 1)) == 1)
		if (write(back[1], &byte, 1) != 1) abort();
	EXPECT(n == 0, "pipe: echo %ld errno %d", n, errno);
	return unused;
}

static void *do_setgid(void *unused)
{
	block_signals();
	LOOP(setgid) {
		EXPECT(!setting_group || setgid(getgid()) == 0, "setgid: errno %d", errno);
		nanosleep(&(struct timespec){ 0, 10000000 }, 0);
	}
	return unused;
}

static void *do_burn(void *unused)
{
	block_signals();
	volatile double x = 1;
	while (!stopping)
		for (int i = 0; i < 100000; i++) x = x * 1.0000001 + 1e-9;
	return unused;
}

int main(int argc, char **argv)
{
	rest_ms = argc > 1 ? atol(argv[1]) : 0;
	long burners = argc > 2 ? atol(argv[2]) : 0;
	setting_group = argc > 3 && atol(argv[3]);
	block_signals();
	struct sigaction action = { .sa_handler = on_interrupt };
	sigaction(SIGUSR1, &action, 0);
	action = (struct sigaction){ .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	sigaction(SIGALRM, &action, 0);
	event_fd = eventfd(0, EFD_CLOEXEC);
	event_epoll = epoll_create1(EPOLL_CLOEXEC);
	empty_epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	epoll_ctl(event_epoll, EPOLL_CTL_ADD, event_fd, &event);
	sem_init(&ping, 0, 0);
	sem_init(&pong, 0, 0);
	if (pipe(there) || pipe(back)) abort();
	pthread_t threads[64];
	int n = 0;
#define START(name) pthread_create(&threads[n++], 0, do_##name, (void *)(uintptr_t)n);
	EACH(START)
	START(malloc)
	interrupted_thread = threads[3];
	START(interrupting) START(posting) START(answering) START(echoing)
	while (burners--) START(burn)
	setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 3000 }, { 0, 3000 } }, 0);
	say("ready\n");
	char line[16];
	while (read(0, line, sizeof(line)) > 0) {
		char text[1024];
		int at = snprintf(text, sizeof(text), "status %d", wrongs);
#define REPORT(name) at += snprintf(text + at, sizeof(text) - at, " " #name "=%ld", name##_rounds);
		EACH(REPORT)
		at += snprintf(text + at, sizeof(text) - at, " alarms=%ld\n", alarms);
		say(text);
	}
	stopping = 1;
	uint64_t many = 1;
	while (pthread_tryjoin_np(threads[4], 0)) { // the one that waits for events without a limit
		if (write(event_fd, &many, 8) != 8) abort();
		nanosleep(&(struct timespec){ 0, 1000000 }, 0);
	}
	pthread_kill(interrupted_thread, SIGUSR1);
	for (int i = 0; i < n; i++)
		if (i != 4) pthread_join(threads[i], 0);
	return wrongs ? 1 : 0;
}
