// One thread that waits in one kind of call, over and over, and checks what it gets. Where the call waits for
// something, that is a byte on standard input; 'q' or its end says to leave. Other calls wait for a time.
#include "common.h"
#include "registers.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

static const int64_t MS = 1000000;
static uint64_t mask_before;

static void round_done(void)
{
	EXPECT(own_mask() == mask_before, "signal mask is %lx, was %lx", own_mask(), mask_before);
	say(wrongs ? "bad\n" : "ok\n");
}

// Takes the byte that ended the wait.
static void take(void)
{
	char byte;
	long n = read(0, &byte, 1);
	if (n == 0 || byte == 'q')
		exit(wrongs ? 1 : 0);
}

// A wait for a time: it must last as long, end as it should, and not be interrupted.
#define TIMED(ms, call, condition) do { \
	int64_t began_ = now_ns(); \
	errno = 4242; \
	long result = call; \
	int error = errno; \
	int64_t took_ = now_ns() - began_; \
	EXPECT(condition, "result %ld errno %d after %ld us", result, error, (long)(took_ / 1000)); \
	EXPECT(took_ >= (ms) * MS - MS / 10, "over after %ld us", (long)(took_ / 1000)); \
	EXPECT(took_ < (ms) * MS * 19 / 10, "took %ld us", (long)(took_ / 1000)); \
} while (0)

static struct timespec in_ms(long ms) { return (struct timespec){ ms / 1000, ms % 1000 * MS }; }

static struct timespec at_ms(clockid_t clock, long ms)
{
	struct timespec t;
	clock_gettime(clock, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * MS;
	if (t.tv_nsec >= 1000 * MS) {
		t.tv_nsec -= 1000 * MS;
		t.tv_sec++;
	}
	return t;
}

static volatile sig_atomic_t handled;
static void count(int signal) { (void)signal; handled++; }
static void read_in_handler(int signal) { (void)signal; take(); }

static void on(int signal, void (*handler)(int), int flags)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
	sigaction(signal, &action, 0);
}

static void filter_call(int number, unsigned action)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, action),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, code };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		WRONG("seccomp: %d", errno);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "read";
	long ms = argc > 2 ? atol(argv[2]) : 1000;
#define IS(name) (!strcmp(mode, name))
	if (IS("seccomp-errno")) filter_call(SYS_memfd_create, SECCOMP_RET_ERRNO | EPERM);
	if (IS("seccomp-kill")) filter_call(SYS_memfd_create, SECCOMP_RET_KILL_PROCESS);
	if (IS("seccomp-harmless")) filter_call(SYS_ptrace, SECCOMP_RET_ERRNO | EPERM);
	if (IS("caught")) // a runtime that handles all there is to handle
		for (int i = 1; i < 32; i++)
			if (i != SIGSEGV && i != SIGBUS) on(i, count, SA_RESTART);
	sigset_t some;
	sigemptyset(&some);
	sigaddset(&some, SIGUSR2);
	sigaddset(&some, SIGPOLL);
	sigprocmask(SIG_BLOCK, &some, 0);
	mask_before = own_mask();
	struct pollfd standard_input = { 0, POLLIN, 0 };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
	int nothing = epoll_create1(EPOLL_CLOEXEC), pair[2];
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ ms / 1000, ms % 1000 * 1000 }, sizeof(struct timeval));
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
	sem_t semaphore;
	sem_init(&semaphore, 0, 0);
	if (IS("no-memory")) { // enough for the injector's region, not for a thread's stack
		struct rlimit limit = { 0, 0 };
		long pages = 0;
		FILE *statm = fopen("/proc/self/statm", "r");
		if (!statm || fscanf(statm, "%ld", &pages) != 1) return 2;
		fclose(statm);
		limit.rlim_cur = limit.rlim_max = pages * 4096 + 1000000;
		setrlimit(RLIMIT_AS, &limit);
	}
	say("ready\n");
	for (unsigned i = 1;; i++) {
		struct timespec time = in_ms(ms), until;
		if (IS("read") || IS("caught") || !strncmp(mode, "seccomp", 7)) {
			take();
		} else if (IS("registers")) {
			char byte = 0;
			long n = checked_call(SYS_read, 0, (long)&byte, 1, i);
			EXPECT(n == 0 || n == 1, "read returned %ld", n);
			if (n == 0 || byte == 'q')
				exit(wrongs ? 1 : 0);
		} else if (IS("registers-poll")) {
			long n = checked_call(SYS_poll, (long)&standard_input, 1, ms, i);
			EXPECT(n == 0 || n == 1, "poll returned %ld errno %d", n, errno);
			if (n) take();
		} else if (IS("registers-epoll")) {
			errno = 0;
			long n = checked_call(SYS_epoll_wait, epoll, (long)&event, 1, i);
			EXPECT(n == 1, "epoll_wait returned %ld errno %d", n, errno);
			take();
		} else if (IS("poll")) {
			long n = poll(&standard_input, 1, -1);
			EXPECT(n == 1, "poll returned %ld errno %d", n, errno);
			take();
		} else if (IS("ppoll")) {
			sigset_t none;
			sigemptyset(&none);
			long n = ppoll(&standard_input, 1, 0, &none);
			EXPECT(n == 1, "ppoll returned %ld errno %d", n, errno);
			take();
		} else if (IS("epoll")) {
			long n = epoll_wait(epoll, &event, 1, -1);
			EXPECT(n == 1, "epoll_wait returned %ld errno %d", n, errno);
			take();
		} else if (IS("epoll-or-eintr")) {
			long n;
			while ((n = epoll_wait(epoll, &event, 1, -1)) == -1 && errno == EINTR)
				say("eintr\n");
			EXPECT(n == 1, "epoll_wait returned %ld errno %d", n, errno);
			take();
		} else if (IS("select")) {
			fd_set set;
			FD_ZERO(&set);
			FD_SET(0, &set);
			long n = select(1, &set, 0, 0, 0);
			EXPECT(n == 1, "select returned %ld errno %d", n, errno);
			take();
		} else if (IS("child")) {
			pid_t child = fork();
			if (!child) {
				char byte;
				_exit(read(0, &byte, 1) == 1 && byte != 'q' ? 7 : 8);
			}
			int status;
			pid_t waited = waitpid(child, &status, 0);
			EXPECT(waited == child && WIFEXITED(status), "waitpid returned %d errno %d", waited, errno);
			if (WEXITSTATUS(status) == 8) exit(wrongs ? 1 : 0);
		} else if (IS("nanosleep")) {
			TIMED(ms, clock_nanosleep(CLOCK_MONOTONIC, 0, &time, 0), result == 0);
		} else if (IS("sleep-until")) {
			until = at_ms(CLOCK_MONOTONIC, ms);
			TIMED(ms, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0), result == 0);
		} else if (IS("poll-timed")) {
			TIMED(ms, poll(0, 0, ms), result == 0 && error == 4242);
		} else if (IS("select-timed")) {
			TIMED(ms, pselect(0, 0, 0, 0, &time, 0), result == 0);
		} else if (IS("condition")) {
			until = at_ms(CLOCK_REALTIME, ms);
			pthread_mutex_lock(&mutex);
			TIMED(ms, pthread_cond_timedwait(&condition, &mutex, &until), result == ETIMEDOUT);
			pthread_mutex_unlock(&mutex);
		} else if (IS("semaphore")) {
			until = at_ms(CLOCK_REALTIME, ms);
			TIMED(ms, sem_timedwait(&semaphore, &until), result == -1 && error == ETIMEDOUT);
		} else if (IS("epoll-timed")) { // may last up to twice as long
			int64_t began = now_ns();
			long n = epoll_wait(nothing, &event, 1, ms);
			EXPECT(n == 0, "epoll_wait returned %ld errno %d", n, errno);
			EXPECT(now_ns() - began >= ms * MS, "epoll_wait was too short");
		} else if (IS("receive-timed")) {
			char byte;
			int64_t began = now_ns();
			long n = recv(pair[0], &byte, 1, 0);
			EXPECT(n == -1 && errno == EAGAIN, "recv returned %ld errno %d", n, errno);
			EXPECT(now_ns() - began >= ms * MS - 4 * MS, "recv was too short");
		} else if (IS("signal-timed")) {
			int64_t began = now_ns();
			int n = sigtimedwait(&some, 0, &time);
			EXPECT(n == -1 && errno == EAGAIN, "sigtimedwait returned %d errno %d", n, errno);
			EXPECT(now_ns() - began >= ms * MS, "sigtimedwait was too short");
		} else if (IS("interrupted")) { // a handler without SA_RESTART must end the call, always
			on(SIGALRM, count, 0);
			int before = handled;
			setitimer(ITIMER_REAL, &(struct itimerval){ .it_value = { 0, ms * 1000 } }, 0);
			char byte;
			long n = read(pair[1], &byte, 1);
			EXPECT(n == -1 && errno == EINTR && handled == before + 1, "read returned %ld errno %d", n, errno);
		} else if (IS("restarted")) { // one with SA_RESTART must not
			on(SIGALRM, count, SA_RESTART);
			setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 500 }, { 0, 500 } }, 0);
			char byte;
			long n = read(0, &byte, 1);
			EXPECT(n >= 0, "read returned %ld errno %d", n, errno);
			EXPECT(handled > 0, "no signal came");
			if (n == 0 || byte == 'q') exit(wrongs ? 1 : 0);
		} else if (IS("fork-on-byte")) {
			take();
			pid_t child = fork();
			if (!child) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				for (;;) pause();
			}
			char text[32];
			snprintf(text, sizeof(text), "%d\n", child);
			say(text);
			take();
		} else if (IS("setgid")) {
			take();
			EXPECT(setgid(getgid()) == 0, "setgid: errno %d", errno);
		} else if (IS("mutex")) {
			pthread_mutex_lock(&mutex);
		} else if (IS("spin")) {
			for (volatile unsigned n = 0; n < 4000000000u; n++);
		} else if (IS("handler")) {
			on(SIGUSR1, read_in_handler, 0);
			raise(SIGUSR1);
		} else if (IS("own-call")) {
			long n;
			char byte;
			asm volatile("syscall" : "=a"(n) : "a"(SYS_read), "D"(0), "S"(&byte), "d"(1) : "rcx", "r11", "memory");
			exit(n != 1 || wrongs);
		} else if (IS("no-memory")) {
			take();
		} else if (IS("pause")) {
			pause();
		} else {
			WRONG("no mode %s", mode);
			return 2;
		}
		round_done();
	}
}
