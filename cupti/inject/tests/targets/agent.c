// What the tests inject. It says that it is there, then does as the ring's flags say, and leaves nothing behind.
//
// Offsets in the ring come from the tests, as macros.
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct start {
	uint32_t size, version;
	uint64_t dlopen, dlsym, dlerror;
	int32_t ring_fd, cupti_fd;
	uint64_t flags;
};

enum { STAY = 1 << 8 };
enum { LEAVE = 2, IDLE = 1, GONE = 7 };

#define WORD(base, offset) ((_Atomic uint32_t *)((char *)(base) + (offset)))

int stallscope_agent_start(const struct start *start)
{
	char *ring = mmap(0, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, start->ring_fd, 0);
	close(start->ring_fd);
	if (start->cupti_fd >= 0) {
		char head[4] = "";
		pread(start->cupti_fd, head, 4, 0);
		atomic_store(WORD(ring, CUPTI_VERSION), *(uint32_t *)head);
		close(start->cupti_fd);
	}
	if (ring == MAP_FAILED)
		return 1;
	atomic_store(WORD(ring, AGENT_VERSION), start->version);
	atomic_store(WORD(ring, PID), getpid());
	atomic_store(WORD(ring, TID), syscall(SYS_gettid));
	atomic_store(WORD(ring, STATE), IDLE);
	while (start->flags & STAY && atomic_load(WORD(ring, COMMAND)) != LEAVE)
		nanosleep(&(struct timespec){ 0, 1000000 }, 0);
	atomic_store(WORD(ring, STATE), GONE);
	munmap(ring, RING_BYTES);
	return 0;
}
