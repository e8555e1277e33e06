// Stacks: walked once, then named by their hash. A stack is sent when its hash has not been seen lately.
//
// Native frames come from frame pointers (the kernel's own walk), Python frames from the interpreter's structures
// (python.bpf.h). Code without frame pointers cuts the native part; the recorder tells by the last frame.
#ifndef STALLSCOPE_STACK_H
#define STALLSCOPE_STACK_H

#include "state.bpf.h"

// Scratch by what may interrupt what on one CPU: a sample can interrupt any probe, a wake-up in an interrupt can
// interrupt a probe in process context, and a switch can follow in mid-probe where programs may be preempted.
enum scratch_slot {
	SCRATCH_PROCESS,
	SCRATCH_SWITCH,
	SCRATCH_WAKE,
	SCRATCH_SAMPLE,
	SCRATCH_SLOTS,
};

struct python_frame {
	u64 code;
	u64 offset;
};

struct stack_scratch {
	struct wire_stack record;
	// Native frames, then Python frames as pairs, closed up before sending.
	u64 frames[WIRE_MAX_FRAMES];
	struct python_frame python[WIRE_MAX_FRAMES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_SLOTS);
	__type(key, u32);
	__type(value, struct stack_scratch);
} scratch SEC(".maps");

// Hashes of stacks that have been sent.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u32);
} stacks_sent SEC(".maps");

static __always_inline u64 mix(u64 hash, u64 value)
{
	hash ^= value;
	hash *= 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

#include "python.bpf.h"

// Global functions are verified once and not at each call: with their loops inlined, no program would be accepted.
__noinline u64 hash_native(struct stack_scratch *s, u64 hash)
{
	if (!s)
		return 0;
	for (u32 i = 0; i < WIRE_MAX_FRAMES; i++) {
		if (i >= s->record.native)
			break;
		hash = mix(hash, s->frames[i]);
	}
	return hash;
}

__noinline u64 hash_python(struct stack_scratch *s, u64 hash)
{
	if (!s)
		return 0;
	for (u32 i = 0; i < WIRE_MAX_FRAMES; i++) {
		if (i >= s->record.python)
			break;
		hash = mix(mix(hash, s->python[i].code), s->python[i].offset);
	}
	return hash;
}

// Hashes and sends what is in the scratch. Returns the stack's id, or 0.
static __noinline u64 finish_stack(struct stack_scratch *s, u32 task, u64 seed)
{
	u64 hash;
	u32 one = 1, native, python, size;
	if (!s)
		return 0;
	native = s->record.native;
	python = s->record.python;
	if (!native && !python)
		return 0;
	hash = hash_python(s, hash_native(s, mix(seed, s->record.head.flags)));
	if (!hash)
		hash = 1;
	if (bpf_map_lookup_elem(&stacks_sent, &hash))
		return hash;
	s->record.head.kind = WIRE_TYPE_STACK;
	s->record.head.task = task;
	s->record.id = hash;
	// The Python frames are sent where they lie: the recorder skips the native slots that are not used.
	size = python ? sizeof(*s) : sizeof(s->record) + sizeof(s->frames);
	if (!python && native <= 16)
		size = sizeof(s->record) + 16 * sizeof(u64);
	else if (!python && native <= 48)
		size = sizeof(s->record) + 48 * sizeof(u64);
	else if (python && python <= 16)
		size = sizeof(s->record) + sizeof(s->frames) + 16 * sizeof(struct python_frame);
	if (!send(s, size)) {
		count(COUNT_STACK_LOST);
		return 0;
	}
	bpf_map_update_elem(&stacks_sent, &hash, &one, BPF_ANY);
	return hash;
}

// The current task's user stack, with these flags.
static __noinline u64 user_stack_as(void *ctx, struct task_state *state, u32 slot, u16 flags)
{
	struct stack_scratch *s;
	long bytes;
	if (!want_stacks || !state)
		return 0;
	s = bpf_map_lookup_elem(&scratch, &slot);
	if (!s)
		return 0;
	s->record.head.flags = flags;
	bytes = bpf_get_stack(ctx, s->frames, sizeof(s->frames), BPF_F_USER_STACK);
	s->record.native = bytes > 0 ? (u64)bytes / 8 : 0;
	s->record.python = python_walk(state, s);
	if (bytes <= 0 && !s->record.python) {
		count(COUNT_STACK_LOST);
		return 0;
	}
	return finish_stack(s, state->id, state->pid);
}

static __always_inline u64 user_stack(void *ctx, struct task_state *state, u32 slot)
{
	return user_stack_as(ctx, state, slot, 0);
}

// A thread that sleeps in the same call as the last time, as deep in its kernel stack, sleeps at the same place: so much
// is believed for waits up to this length. Longer ones are worth a walk each.
#define SAME_PLACE_NS 1000000

// The kernel stack of a task that is not running and has waited for so long.
static __noinline u64 sleeper_stack(struct task_struct *task, struct task_state *state, u64 waited)
{
	struct stack_scratch *s;
	u32 slot = SCRATCH_SWITCH;
	u64 sp = task->thread.sp;
	long bytes;
	if (!want_stacks || !want_kernel_stacks || !state)
		return 0;
	if (waited < SAME_PLACE_NS && state->slept_sp == sp && state->slept_call == state->call)
		return state->slept_stack;
	s = bpf_map_lookup_elem(&scratch, &slot);
	if (!s)
		return 0;
	bytes = bpf_get_task_stack(task, s->frames, sizeof(s->frames), 0);
	s->record.head.flags = WIRE_STACK_KERNEL;
	s->record.native = bytes > 0 ? (u64)bytes / 8 : 0;
	s->record.python = 0;
	state->slept_stack = finish_stack(s, state->id, 1);
	state->slept_call = state->call;
	// What could not be sent is tried again.
	state->slept_sp = state->slept_stack ? sp : 0;
	return state->slept_stack;
}

// The kernel part of the stack at a sample.
static __noinline u64 kernel_stack(void *ctx, struct task_state *state, u32 slot)
{
	struct stack_scratch *s;
	long bytes;
	if (!want_stacks || !want_kernel_stacks || !state)
		return 0;
	s = bpf_map_lookup_elem(&scratch, &slot);
	if (!s)
		return 0;
	bytes = bpf_get_stack(ctx, s->frames, sizeof(s->frames), 0);
	s->record.head.flags = WIRE_STACK_KERNEL;
	s->record.native = bytes > 0 ? (u64)bytes / 8 : 0;
	s->record.python = 0;
	return finish_stack(s, state->id, 1);
}

#endif
