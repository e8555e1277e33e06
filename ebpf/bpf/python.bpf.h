// The frames of a CPython interpreter, walked in the context of the thread that runs it. See src/python for where the
// offsets come from.
//
// What always holds:
// - Only memory of the current process is read, without faults: what is not there ends the walk and is said so.
// - A thread is found by its control block (FS base), which is what pthread_self gives and CPython keeps: the same in
//   every pid namespace, after a fork, and in all versions.
// - A thread that runs Python is found once, and then costs a look at its id; one that never does costs a look at the
//   interpreter's newest thread.
#ifndef STALLSCOPE_PYTHON_H
#define STALLSCOPE_PYTHON_H

#define PYTHON_NONE 0xffff
// Words of a frame that are read: Entry::of in src/python/settings.rs keeps fields below 120 bytes.
#define PYTHON_FRAME_WORDS 16
// Threads that are looked at for one: bounds the time of a probe to about 30 µs.
#define PYTHON_MAX_THREADS 512
// Turns of a loop within one function. The verifier goes through each turn, and compares it with all earlier ones: the
// loops are in functions of their own, verified once, and called as often as it takes.
#define PYTHON_STRIDE 64
// No address of a frame.
#define PYTHON_BROKEN 1
// A thread that was not found is looked for again at latest after so many stacks.
#define PYTHON_SEARCH_AGAIN 64
// Tags in the low bits of references (3.14); objects are aligned to 16 bytes.
#define PYTHON_TAGS 7ULL

// Mirrored by Entry in src/python/settings.rs.
struct python_process {
	u64 interpreters; // address of the pointer to the newest interpreter
	u32 interpreter_next;
	u32 interpreter_threads;
	u16 thread_next;
	u16 thread_id;
	u16 thread_frame;
	u16 cframe_frame; // 3.11 and 3.12 have the frame behind one more pointer
	u16 frame_bytes;
	u16 frame_previous;
	u16 frame_code;
	u16 frame_instruction;
	u16 frame_owner;
	u16 instructions; // offset of the first instruction in a code object
	u8 foreign_owner; // frames owned by this and above are marks of the interpreter
	u8 instruction_is_index; // 3.10
	u8 reserved[2];
};

// By process. Written by the recorder, inherited at fork, removed at exec and exit.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct python_process);
} python_processes SEC(".maps");

// A process that is forked has its parent's interpreter where the parent has it.
static __always_inline void python_fork(u32 parent, u32 child)
{
	struct python_process *p;
	if (parent == child)
		return;
	p = bpf_map_lookup_elem(&python_processes, &parent);
	if (p)
		bpf_map_update_elem(&python_processes, &child, p, BPF_ANY);
}

static __always_inline void python_forget(u32 pid)
{
	bpf_map_delete_elem(&python_processes, &pid);
}

// 0 where it cannot be read.
static __always_inline u64 python_read(u64 address)
{
	u64 value = 0;
	bpf_probe_read_user(&value, sizeof(value), (void *)address);
	return value;
}

// A thread's innermost frame.
static __always_inline u64 python_innermost(struct python_process *p, u64 thread)
{
	u64 frame = python_read(thread + p->thread_frame);
	if (frame && p->cframe_frame != PYTHON_NONE)
		frame = python_read(frame + p->cframe_frame);
	return frame;
}

// A search through the threads of all interpreters.
struct python_search {
	u64 self;
	u64 interpreter;
	u64 thread;
	// What was found: of several a thread that has frames.
	u64 found;
	bool done;
};

// Looks at the next threads. 3.10 and 3.11 give a new thread its creator's id until it runs, and a thread may be known to
// more than one interpreter: so that one without frames does not end the search.
__noinline int python_search_some(struct python_process *p, struct python_search *search)
{
	u64 thread, interpreter;
	if (!p || !search)
		return 0;
	thread = search->thread;
	interpreter = search->interpreter;
	for (u32 i = 0; i < PYTHON_STRIDE; i++) {
		if (!thread) {
			interpreter = python_read(interpreter + p->interpreter_next);
			if (!interpreter) {
				search->done = true;
				return 0;
			}
			thread = python_read(interpreter + p->interpreter_threads);
			continue;
		}
		if (python_read(thread + p->thread_id) == search->self) {
			search->found = thread;
			if (python_innermost(p, thread)) {
				search->done = true;
				return 0;
			}
		}
		thread = python_read(thread + p->thread_next);
	}
	search->thread = thread;
	search->interpreter = interpreter;
	return 0;
}

// The state of the thread whose control block is at `self`, or 0.
static __always_inline u64 python_find(struct python_process *p, u64 self)
{
	struct python_search search = { .self = self };
	search.interpreter = python_read(p->interpreters);
	if (!search.interpreter)
		return 0;
	search.thread = python_read(search.interpreter + p->interpreter_threads);
	for (u32 i = 0; i < PYTHON_MAX_THREADS / PYTHON_STRIDE; i++) {
		if (search.done)
			break;
		python_search_some(p, &search);
	}
	return search.found;
}

// Walks some frames outward. Returns the next, 0 at the end, or PYTHON_BROKEN.
__noinline u64 python_walk_some(struct python_process *p, struct stack_scratch *s, u64 frame)
{
	u64 words[PYTHON_FRAME_WORDS] = {};
	u64 code, instruction;
	u32 bytes, n;
	if (!p || !s)
		return PYTHON_BROKEN;
	for (u32 i = 0; i < PYTHON_STRIDE; i++) {
		if (!frame)
			return 0;
		bytes = p->frame_bytes & (sizeof(words) - 1);
		if (bpf_probe_read_user(words, bytes, (void *)frame))
			return PYTHON_BROKEN;
		frame = words[(p->frame_previous >> 3) % PYTHON_FRAME_WORDS];
		if (p->frame_owner != PYTHON_NONE &&
		    ((u8 *)words)[p->frame_owner % sizeof(words)] >= p->foreign_owner)
			continue;
		code = words[(p->frame_code >> 3) % PYTHON_FRAME_WORDS] & ~PYTHON_TAGS;
		if (!code)
			return PYTHON_BROKEN;
		instruction = words[(p->frame_instruction >> 3) % PYTHON_FRAME_WORDS];
		if (p->instruction_is_index)
			instruction = (u64)((s64)(s32)instruction * 2);
		else
			instruction -= code + p->instructions;
		// Kept in memory and not in a register: the verifier would follow each of its values.
		n = s->record.python;
		if (n >= WIRE_MAX_FRAMES)
			return PYTHON_BROKEN;
		s->python[n].code = code;
		s->python[n].offset = instruction;
		s->record.python = n + 1;
	}
	return frame;
}

// The current thread's innermost frame, or 0.
static __always_inline u64 python_begin(struct python_process *p, struct task_state *state)
{
	u64 self, thread, frame, newest;
	struct task_struct *task = bpf_get_current_task_btf();
	self = BPF_CORE_READ(task, thread.fsbase);
	if (!self)
		return 0;
	thread = state->python_thread;
	if (thread && python_read(thread + p->thread_id) == self) {
		frame = python_innermost(p, thread);
		if (frame)
			return frame;
	}
	// A thread that has never run Python is looked for when another was added, at the head. One that has may come and go
	// (PyGILState_Ensure makes a state, often where one was freed), which the head does not tell: it is looked for always.
	newest = python_read(python_read(p->interpreters) + p->interpreter_threads);
	if (!thread && newest == state->python_newest && ++state->python_misses < PYTHON_SEARCH_AGAIN &&
	    python_read(newest + p->thread_id) != self)
		return 0;
	state->python_newest = newest;
	state->python_misses = 0;
	thread = python_find(p, self);
	if (!thread)
		return 0;
	state->python_thread = thread;
	return python_innermost(p, thread);
}

// Returns how many frames were written to the scratch.
static __always_inline u32 python_walk(struct task_state *state, struct stack_scratch *s)
{
	struct python_process *p;
	u64 frame;
	u32 pid = state->pid;
	s->record.python = 0;
	p = bpf_map_lookup_elem(&python_processes, &pid);
	if (!p)
		return 0;
	frame = python_begin(p, state);
	if (!frame)
		return 0;
	// Frames that are not Python's lie between those that are, in the worst case one each.
	for (u32 i = 0; i < 2 * WIRE_MAX_FRAMES / PYTHON_STRIDE + 1; i++) {
		frame = python_walk_some(p, s, frame);
		if (!frame || frame == PYTHON_BROKEN)
			break;
	}
	if (frame)
		s->record.head.flags |= WIRE_STACK_PYTHON_CUT;
	return s->record.python;
}

#endif
