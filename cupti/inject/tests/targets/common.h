// What the targets share. A target prints "ready" when it is about to do what it is there for, and a line for
// everything that it finds wrong.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_int wrongs;

#define WRONG(...) do { \
	char text_[512]; \
	int n_ = snprintf(text_, sizeof(text_), "WRONG " __VA_ARGS__); \
	text_[n_ < 510 ? n_ : 510] = '\n'; \
	wrongs++; \
	if (write(1, text_, (n_ < 510 ? n_ : 510) + 1) < 0) _exit(9); \
} while (0)

#define EXPECT(condition, ...) do { if (!(condition)) WRONG(__VA_ARGS__); } while (0)

static inline int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static inline uint64_t own_mask(void)
{
	uint64_t mask = 0;
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, 0, &mask, 8);
	return mask;
}

static inline void say(const char *text)
{
	if (write(1, text, strlen(text)) < 0)
		_exit(9);
}
