// What all probes share: the settings, the state of each followed task, the rings, and how records leave.
//
// What always holds:
// - A task has state if it is followed, and then until it is freed; `state_of` finds that of followed ones. State is only made in process context (the iterator at attach, fork
//   afterwards), never under the scheduler's locks.
// - A record that does not fit into its ring is counted, and the time that it stood for is reported as lost by the next
//   record of the same task that fits.
#ifndef STALLSCOPE_STATE_H
#define STALLSCOPE_STATE_H

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "host.h"

#define PF_KTHREAD 0x00200000
#define TASK_STOPPED_OR_TRACED 0x0c
#define MAX_SHARDS 64
// A file noted for a page fault longer ago than this belongs to another fault.
#define FAULT_FRESH_NS 1000000

// Set before the programs are loaded; the verifier removes what they switch off.
const volatile u32 shards = 1;
// Bytes that wait in a ring before the recorder is woken: otherwise it looks on its own at intervals.
const volatile u64 wakeup_bytes = 256 << 10;
// Waits at least this long get stacks.
const volatile u64 stack_threshold_ns = 100000;
// A run-queue stretch at least this long is a record by itself; shorter ones are added up.
const volatile u64 long_preempt_ns = 1000000;
// Added-up run-queue stretches are reported at least this often.
const volatile u64 preempt_window_ns = 10000000;
// Page faults are reported at most this often.
const volatile u64 faults_window_ns = 10000000;
const volatile u32 max_tasks = 65536;
// Time between two samples of one CPU.
const volatile u64 sample_period_ns = 10101010;
const volatile bool want_stacks = true;
const volatile bool want_kernel_stacks = true;
const volatile bool want_syscalls = true; // sys_exit is attached: waits in system calls are completed there
const volatile bool want_files = true; // calls and bytes by file
const volatile bool want_network = true; // totals of TCP connections
// Set while the recording goes on, cleared before detaching.
bool recording = false;

struct pending_wait {
	struct wire_wait_record record;
	bool valid;
};

// What a descriptor stood for when the thread used it last. See object.bpf.h.
#define FD_SLOTS 4

struct fd_slot {
	u64 file;
	u64 inode;
	u64 number;
	u64 socket;
	u64 object;
	u32 ports;
	u8 kind;
	// Calls and bytes that have not been added to the others yet. See files.bpf.h.
	u64 reads;
	u64 read_bytes;
	u64 writes;
	u64 written_bytes;
};

struct task_state {
	u32 id;
	u32 tid;
	u32 pid;
	// Off the CPU since, 0 while on it.
	u64 off_since;
	// On the CPU since, while on it.
	u64 on_since;
	// Runnable again since, 0 while it is not.
	u64 woken_at;
	u64 waker_stack;
	u32 waker;
	// A wire_wait while off the CPU.
	u8 off_kind;
	u16 waker_flags;
	// It is on its way out and no longer followed: kept to name whom it still wakes.
	bool gone;
	// A call that waits a second time is continued.
	bool in_call;
	// The call is one of the 32-bit table.
	bool compat;
	s32 call;
	s32 fd;
	u32 wanted;
	u8 object_kind;
	u64 object;
	u64 page_fault_stack;
	// The queue that it was preempted on, and how long that had been throttled by then.
	u64 queue;
	u64 throttled_time;
	// Short run-queue stretches since `some_since`.
	u64 some_since;
	u64 some_run_queue;
	u32 some_times;
	u32 top_preemptor;
	// How long `top_preemptor` has run in them, as far as it has not been outweighed by others.
	u64 top_preempted;
	// What could not be sent.
	u64 lost_from;
	u64 lost_to;
	u64 lost_records;
	// Faults already reported.
	u64 faults_since;
	u64 min_flt;
	u64 maj_flt;
	// The thread's PyThreadState, once found.
	u64 python_thread;
	// The interpreter's newest thread when this one was last looked for, and the stacks without frames since.
	u64 python_newest;
	u32 python_misses;
	// File that the page fault in progress reads, as of `fault_at`.
	u64 fault_inode;
	u64 fault_object;
	u64 fault_at;
	struct fd_slot fds[FD_SLOTS];
	// What the last descriptor stood for, and how long that is believed. See resolve_object.
	u64 trusted_until;
	u64 trusted_object;
	u32 trusted_fd;
	s32 trusted_call;
	u8 trusted_kind;
	bool on_trust;
	// Where it slept when its kernel stack was walked last. See sleeper_stack.
	u64 slept_sp;
	u64 slept_stack;
	s32 slept_call;
	// Records sent, for looking at the ring now and then.
	u8 sent;
	u64 scratch;
	struct pending_wait pending;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

// Processes to follow. Written by the recorder before it runs the iterator, and kept up by fork and exit.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, u32);
} followed SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

// The rings, one a shard of CPUs; the recorder makes them and puts them in.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_SHARDS);
	__type(key, u32);
	__array(values, struct ring);
} rings SEC(".maps");

// Counters, by CPU.
enum counter {
	COUNT_RING_FULL,      // records that did not fit into a ring
	COUNT_TASKS_FULL,     // threads that were not followed because there are too many
	COUNT_STACK_LOST,     // stacks that could not be read or sent
	COUNT_OBJECT_LOST,    // objects that could not be named
	COUNT_CALLS_LOST,     // collective calls whose return was not seen
	COUNT_RECORDS,        // records sent
	COUNT_REQUEST_LOST,   // block requests that were not followed because there are too many
	COUNT_SWITCH_MISSED,  // switches that the kernel did not tell of
	COUNT_CALLS,          // collective calls that began
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, u32);
	__type(value, u64);
} counters SEC(".maps");

// Tasks outside of the job that have been introduced.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u32);
	__type(value, u64);
} outsiders SEC(".maps");

u32 last_task_id = 0;
u32 task_count = 0;

static __always_inline void count(u32 counter)
{
	u64 *value = bpf_map_lookup_elem(&counters, &counter);
	if (value)
		(*value)++;
}

static __always_inline void *ring(void)
{
	u32 shard = shards > 1 ? bpf_get_smp_processor_id() : 0;
	// As a rule each CPU has a ring: no division.
	if (shard >= shards)
		shard %= shards;
	return bpf_map_lookup_elem(&rings, &shard);
}

static __always_inline u64 wakeup_flags(void *ring)
{
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) >= wakeup_bytes ? BPF_RB_FORCE_WAKEUP
									  : BPF_RB_NO_WAKEUP;
}

// Sends a record, and wakes the recorder where a ring is filling up if it is to look for that. Returns whether it was sent.
static __always_inline bool send_with(void *record, u64 size, bool look)
{
	void *r = ring();
	if (!r)
		return false;
	if (bpf_ringbuf_output(r, record, size, look ? wakeup_flags(r) : BPF_RB_NO_WAKEUP)) {
		count(COUNT_RING_FULL);
		return false;
	}
	return true;
}

// Sends a record that need not be accounted to a task.
static __always_inline bool send(void *record, u64 size)
{
	return send_with(record, size, true);
}

static __always_inline struct task_state *state_of(struct task_struct *task)
{
	struct task_state *state = bpf_task_storage_get(&tasks, task, 0, 0);
	return state && !state->gone ? state : 0;
}

static __noinline void note_loss(struct task_state *state, u64 from, u64 to)
{
	if (!state)
		return;
	if (!state->lost_records || from < state->lost_from)
		state->lost_from = from;
	if (to > state->lost_to)
		state->lost_to = to;
	state->lost_records++;
}

// Tells the recorder of earlier losses of the task, if there were any and there is room now.
static __noinline void report_loss(struct task_state *state)
{
	struct wire_loss loss = {};
	if (!state || !state->lost_records)
		return;
	loss.head.kind = WIRE_TYPE_LOSS;
	loss.head.task = state->id;
	loss.start_ns = state->lost_from;
	loss.duration_ns = state->lost_to - state->lost_from;
	loss.records = state->lost_records;
	if (send(&loss, sizeof(loss))) {
		state->lost_records = 0;
		state->lost_to = 0;
	}
}

// Sends a record about a stretch of a task's time.
static __always_inline void send_timed(struct task_state *state, void *record, u64 size, u64 from, u64 to)
{
	if (state->lost_records)
		report_loss(state);
	// Whether the recorder is to be woken is looked at now and then: a ring holds thousands of records.
	if (!send_with(record, size, !(++state->sent & 15)))
		note_loss(state, from, to);
}

// The number of a task that is not followed. Introduces it once.
static __noinline u32 name_outsider(struct task_struct *task)
{
	struct wire_task record = {};
	u32 tid;
	u64 born;
	u64 *known;
	tid = BPF_CORE_READ(task, pid);
	if (!tid)
		return 0; // the idle task
	born = BPF_CORE_READ(task, start_boottime);
	known = bpf_map_lookup_elem(&outsiders, &tid);
	if (known && *known == born)
		return WIRE_OUTSIDE | tid;
	record.head.kind = WIRE_TYPE_TASK;
	record.head.task = WIRE_OUTSIDE | tid;
	record.time_ns = bpf_ktime_get_ns();
	record.tid = tid;
	record.pid = BPF_CORE_READ(task, tgid);
	record.ppid = BPF_CORE_READ(task, real_parent, tgid);
	record.born_ns = born;
	bpf_probe_read_kernel(record.comm, sizeof(record.comm), &task->comm);
	if (send(&record, sizeof(record)))
		bpf_map_update_elem(&outsiders, &tid, &born, BPF_ANY);
	return WIRE_OUTSIDE | tid;
}

// The number by which records name a task that may not be followed.
static __always_inline u32 name_of(struct task_struct *task, struct task_state *state)
{
	return state ? state->id : name_outsider(task);
}

#endif
