/* The smallest libcupti on which the agent runs: kernels that the test asks for, one subscriber, buffers as CUPTI
 * handles them. Written for these tests; the whole of CUDA is cupti/double. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
enum { KERNEL = 10, KERNEL_BYTES = 208, LAUNCH = 307, CALL_BYTES = 40 };

typedef void (*requested_fn)(uint8_t **, size_t *, size_t *);
typedef void (*completed_fn)(void *, uint32_t, uint8_t *, size_t, size_t);
struct call_data { uint32_t site; const char *function; const void *params; void *result; const char *symbol;
	void *context; uint32_t context_id; uint64_t *word; uint32_t correlation; };
typedef void (*call_fn)(void *, uint32_t, uint32_t, const struct call_data *);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static requested_fn requested;
static completed_fn completed;
static call_fn subscriber;
static uint8_t *buffer;
static size_t size, used, dropped;
static int kernels_on, launches_on, domain_on;
static uint32_t correlation, thread_ids;

/* What a test asks afterwards. */
EXPORT int fake_cupti_finalized;

EXPORT int cuptiGetVersion(uint32_t *version) { *version = 24; return 0; }

EXPORT int cuptiGetTimestamp(uint64_t *now)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME, &time);
	*now = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
	return 0;
}

EXPORT int cuptiSubscribe(void **handle, call_fn callback, void *user)
{
	(void)user;
	if (__sync_val_compare_and_swap(&subscriber, NULL, callback))
		return 39;
	*handle = &subscriber;
	return 0;
}

EXPORT int cuptiUnsubscribe(void *handle)
{
	(void)handle;
	domain_on = 0;
	subscriber = NULL;
	return 0;
}

EXPORT int cuptiEnableCallback(uint32_t on, void *handle, uint32_t domain, uint32_t call)
{
	(void)handle;
	if (call == LAUNCH && domain == 1)
		domain_on = (int)on;
	return 0;
}

EXPORT int cuptiEnableDomain(uint32_t on, void *handle, uint32_t domain)
{
	(void)handle; (void)domain;
	domain_on = (int)on;
	return 0;
}

EXPORT int cuptiActivityRegisterCallbacks(requested_fn request, completed_fn complete)
{
	requested = request;
	completed = complete;
	return 0;
}

EXPORT int cuptiActivityEnable(uint32_t kind)
{
	kernels_on |= kind == KERNEL;
	return 0;
}

EXPORT int cuptiActivityEnableAndDump(uint32_t kind) { return cuptiActivityEnable(kind); }

EXPORT int cuptiActivityDisable(uint32_t kind)
{
	if (kind == KERNEL)
		kernels_on = 0;
	return 0;
}

EXPORT int cuptiActivityEnableDriverApi(uint32_t call, uint8_t on)
{
	if (call == LAUNCH)
		launches_on = on;
	return 0;
}

/* With the lock held. */
static void give_back(void)
{
	uint8_t *done = buffer;

	buffer = NULL;
	if (done)
		completed(NULL, 0, done, size, used);
}

static uint8_t *room(size_t bytes)
{
	uint8_t *at;
	size_t most;

	if (buffer && used + bytes > size)
		give_back();
	if (!buffer) {
		requested(&buffer, &size, &most);
		used = 0;
	}
	if (!buffer) {
		dropped++;
		return NULL;
	}
	at = buffer + used;
	used += bytes;
	return at;
}

EXPORT int cuptiActivityFlushAll(uint32_t flags)
{
	(void)flags;
	pthread_mutex_lock(&lock);
	give_back();
	pthread_mutex_unlock(&lock);
	return 0;
}

static size_t bytes_of(const uint8_t *record)
{
	uint32_t kind;

	memcpy(&kind, record, 4);
	return kind == KERNEL ? KERNEL_BYTES : CALL_BYTES;
}

EXPORT int cuptiActivityGetNextRecord(uint8_t *begin, size_t valid, uint8_t **record)
{
	uint8_t *next = *record ? *record + bytes_of(*record) : begin;

	if (next >= begin + valid)
		return 12;
	*record = next;
	return 0;
}

EXPORT int cuptiActivityGetNumDroppedRecords(void *context, uint32_t stream, size_t *count)
{
	(void)context; (void)stream;
	*count = __sync_lock_test_and_set(&dropped, 0);
	return 0;
}

EXPORT int cuptiGetThreadIdType(uint32_t *kind) { *kind = thread_ids; return 0; }
EXPORT int cuptiSetThreadIdType(uint32_t kind) { thread_ids = kind; return 0; }

EXPORT int cuptiFinalize(void)
{
	pthread_mutex_lock(&lock);
	subscriber = NULL;
	domain_on = kernels_on = launches_on = 0;
	buffer = NULL;
	requested = NULL;
	completed = NULL;
	fake_cupti_finalized++;
	pthread_mutex_unlock(&lock);
	return 0;
}

static void put64(uint8_t *record, size_t at, uint64_t value) { memcpy(record + at, &value, 8); }
static void put32(uint8_t *record, size_t at, uint32_t value) { memcpy(record + at, &value, 4); }

/* The job launches so many kernels, whose names are given; returns the correlation id of the last. */
EXPORT uint32_t fake_launch(uint32_t count, const char *const *names, uint32_t name_count)
{
	struct call_data data = { 0 };
	uint64_t now;
	call_fn call;

	for (uint32_t i = 0; i < count; i++) {
		uint8_t *record;

		data.correlation = __sync_add_and_fetch(&correlation, 1);
		for (data.site = 0; data.site < 2; data.site++) {
			call = subscriber;
			if (domain_on && call)
				call(NULL, 1, LAUNCH, &data);
		}
		pthread_mutex_lock(&lock);
		cuptiGetTimestamp(&now);
		if (kernels_on && (record = room(KERNEL_BYTES))) {
			put32(record, 0, KERNEL);
			put64(record, 16, now);
			put64(record, 24, now + 1000);
			put32(record, 92, data.correlation);
			put64(record, 104, (uint64_t)(uintptr_t)names[i % name_count]);
		}
		if (launches_on && (record = room(CALL_BYTES))) {
			put32(record, 0, 4);
			put32(record, 4, LAUNCH);
			put64(record, 8, now - 500);
			put64(record, 16, now - 100);
			put32(record, 32, data.correlation);
		}
		pthread_mutex_unlock(&lock);
	}
	return data.correlation;
}
