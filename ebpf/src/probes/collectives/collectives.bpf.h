// Collective calls: one record for each call of a function of the table, from its entry to its return.
//
// A thread's open calls lie in a small stack of its own. What ties an exit to its entry is the stack pointer: at the
// entry it points to the return address, and while it is above that place the call's frame is gone. So a call that is
// left by a longjmp is closed the next time that its thread is looked at, and one that is left by an exception when that
// is caught; both are said to be such.
//
// What is read of a call is data: `call_rows` holds for each function where its values are (see table.rs).

#define MAX_OPEN 8 // a power of two
#define MAX_ROWS 4096

// A cookie's low half is the wire's `function`. This bit says that the function's exits are probed where they are: the
// stack pointer is that of the entry. After a return probe it is one word further up.
#define COLLECTIVE_AT_RETURN (1ULL << 32)
// This exit is a jump to another function, which has not done its part yet.
#define COLLECTIVE_JUMP (1ULL << 33)

// Above these bits is a number of the file. Containers with one image see its files as different ones, and probes on them
// as one: then each call arrives here once for each of them.
#define COLLECTIVE_FILE(cookie) ((u32)((cookie) >> 34))

// Distances further than this are between two stacks, and say nothing about frames.
#define COLLECTIVE_SAME_STACK (64ULL << 20)

enum collective_how {
	COLLECTIVE_DEREFERENCES = 0x03, // how many pointers to follow, each at an offset
	COLLECTIVE_WORD = 0x04,	  // 32 bits, signed; else 64
	COLLECTIVE_LATE = 0x08,	  // the last pointer is followed at the return
};

struct call_value {
	u8 argument; // 0 to 5 are registers, the others on the stack
	u8 how;
	u16 offsets[2];
};

enum call_row_flag {
	ROW_COUNTED = 1,	   // takes a sequence number of its communicator
	ROW_OPENS_GROUP = 2,  // ncclGroupStart
	ROW_CLOSES_GROUP = 4, // ncclGroupEnd
	ROW_GROUPED = 8,	   // between the two it is part of one call
	ROW_RESULT = 16,	   // the return register is a result
	ROW_CATCH = 32,		   // no collective: an exception has arrived
};

struct call_row {
	u16 flags;
	u8 values;
	u8 library;
	u8 communicator; // which value it is, plus one
	u8 made;	 // which value is a new communicator, plus one
	u16 call_flags;
	struct call_value value[WIRE_CALL_VALUES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_ROWS);
	__type(key, u32);
	__type(value, struct call_row);
} call_rows SEC(".maps");

struct open_call {
	u64 start;
	u64 sp;
	// When it was last known to be open.
	u64 seen;
	u64 values[WIRE_CALL_VALUES];
	u64 sequence;
	// Known at the return.
	u64 stack;
	s64 result;
	u32 function;
	u32 file;
	u16 known;
	u16 call_flags;
	bool at_return; // all its exits are probed, those by a jump to another function too
};

// Raised when the probes have been taken off for a while: what was open then has ended unseen, and calls are no longer
// counted from the beginning. See Session::pause_collectives.
u32 calls_round = 0;
u64 calls_paused_at = 0;

struct thread_calls {
	u32 depth;
	u32 round;
	// How many groups are open: a late attach may see an end without a begin.
	u32 groups;
	struct open_call open[MAX_OPEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct thread_calls);
} open_calls SEC(".maps");

#define LIBRARY_MPI 3 // record::CollectiveLibrary

struct communicator {
	u64 handle;
	u32 pid;
	u32 library;
};

// How many collective calls a process has begun on each communicator.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct communicator);
	__type(value, u64);
} call_sequences SEC(".maps");

static __always_inline bool call_word(u64 address, u64 size, u64 *value)
{
	s32 word = 0;
	if (size == 8)
		return !bpf_probe_read_user(value, 8, (void *)address);
	if (bpf_probe_read_user(&word, 4, (void *)address))
		return false;
	*value = (s64)word;
	return true;
}

static __always_inline bool call_argument(struct pt_regs *ctx, u32 n, u64 *value)
{
	switch (n) {
	case 0:
		*value = ctx->di;
		return true;
	case 1:
		*value = ctx->si;
		return true;
	case 2:
		*value = ctx->dx;
		return true;
	case 3:
		*value = ctx->cx;
		return true;
	case 4:
		*value = ctx->r8;
		return true;
	case 5:
		*value = ctx->r9;
		return true;
	}
	return call_word(ctx->sp + 8 + (u64)(n - 6) * 8, 8, value);
}

// Reads one value of a call that begins.
static __always_inline bool call_read(struct pt_regs *ctx, struct call_value *from, u64 *value)
{
	u32 how = from->how, pointers = how & COLLECTIVE_DEREFERENCES;
	u64 size = how & COLLECTIVE_WORD ? 4 : 8;
	if (!call_argument(ctx, from->argument, value))
		return false;
	if (!pointers) {
		if (size == 4)
			*value = (s64)(s32)*value;
		return true;
	}
	if (pointers == 2) {
		if (!call_word(*value + from->offsets[0], 8, value))
			return false;
	}
	*value += pointers == 2 ? from->offsets[1] : from->offsets[0];
	return how & COLLECTIVE_LATE || call_word(*value, size, value);
}

// Of most MPIs a handle is an integer, and the upper half of its register anything; addresses differ in the lower half.
static __always_inline u64 communicator_handle(u32 library, u64 handle)
{
	return library == LIBRARY_MPI ? (u32)handle : handle;
}

static __noinline u64 call_sequence(u32 pid, u32 library, u64 handle)
{
	struct communicator key = { .pid = pid, .library = library };
	u64 *last, one = 1;
	key.handle = communicator_handle(library, handle);
	last = bpf_map_lookup_elem(&call_sequences, &key);
	if (last)
		return __sync_fetch_and_add(last, 1) + 1;
	if (!bpf_map_update_elem(&call_sequences, &key, &one, BPF_NOEXIST))
		return 1;
	last = bpf_map_lookup_elem(&call_sequences, &key);
	return last ? __sync_fetch_and_add(last, 1) + 1 : 0;
}

static __noinline void send_call(struct task_state *state, struct open_call *open, u64 until, u32 flags)
{
	struct wire_call record = {};
	if (!state || !open)
		return;
	record.head.kind = WIRE_TYPE_CALL;
	record.head.flags = open->known;
	record.head.task = state->id;
	record.start_ns = open->start;
	record.duration_ns = until > open->start ? until - open->start : 0;
	__builtin_memcpy(record.values, open->values, sizeof(record.values));
	record.result = open->result;
	record.stack = open->stack;
	record.sequence = open->sequence;
	record.function = open->function;
	record.call_flags = open->call_flags | flags;
	send_timed(state, &record, sizeof(record), open->start, until > open->start ? until : open->start);
}

#define COLLECTIVE_OPEN 2	// record::call_flags
#define COLLECTIVE_NESTED 1
#define COLLECTIVE_RETURNED 8

// The place of an open call. The mask says to the verifier, which forgets what compilers rearrange, that it is one.
static __always_inline struct open_call *open_at(struct thread_calls *calls, u32 at)
{
	asm volatile("" : "+r"(at));
	return &calls->open[at & (MAX_OPEN - 1)];
}

// The innermost open call, if there is one.
static __always_inline struct open_call *innermost(struct thread_calls *calls)
{
	u32 at = calls->depth - 1;
	return at < MAX_OPEN ? open_at(calls, at) : 0;
}

// Takes the innermost call off.
static __always_inline void close_call(struct thread_calls *calls, u64 now)
{
	struct open_call *outer;
	calls->depth--;
	outer = innermost(calls);
	if (outer)
		outer->seen = now;
}

// The thread's open calls, without those of before the probes were taken off: how those ended is not known.
static __noinline void forget_unseen(struct task_state *state, struct thread_calls *calls)
{
	struct wire_loss loss = {};
	if (!state || !calls || calls->round == calls_round)
		return;
	if (calls->depth && calls->open[0].start < calls_paused_at) {
		loss.head.kind = WIRE_TYPE_LOSS;
		loss.head.flags = WIRE_LOSS_PAUSED;
		loss.head.task = state->id;
		loss.start_ns = calls->open[0].start;
		loss.duration_ns = calls_paused_at - loss.start_ns;
		loss.records = calls->depth;
		if (!send(&loss, sizeof(loss)))
			note_loss(state, loss.start_ns, calls_paused_at);
	}
	calls->depth = 0;
	calls->groups = 0;
	calls->round = calls_round;
}

// Closes the calls that were left without a return: those of frames below `sp`. At the same place there may be one that
// is open: MPI_X may jump to PMPI_X. It is gone if the function that begins is the same, or if its jumps are probed.
// `at` is when they were left, 0 where that is not known.
static __noinline void close_left(struct task_state *state, struct thread_calls *calls, u64 sp, u32 begins, u64 at)
{
	if (!state || !calls)
		return;
	for (u32 i = 0; i < MAX_OPEN; i++) {
		struct open_call *open = innermost(calls);
		if (!open || sp < open->sp || sp - open->sp > COLLECTIVE_SAME_STACK)
			return;
		if (sp == open->sp && open->function != begins && !open->at_return)
			return;
		count(COUNT_CALLS_LOST);
		send_call(state, open, at ? at : open->seen, COLLECTIVE_OPEN | WIRE_CALL_LEFT);
		close_call(calls, at ? at : open->seen);
	}
}

static __noinline void begin_call(struct pt_regs *ctx, struct task_struct *task, struct task_state *state, u64 cookie)
{
	struct thread_calls *thread;
	struct open_call *open, *outer;
	struct call_row *row;
	u32 number = (u16)cookie, at, outer_number;
	bool same_library = false;
	u64 now;
	row = bpf_map_lookup_elem(&call_rows, &number);
	if (row && row->flags & ROW_CATCH) {
		// The frame that catches called what it called from the same place or a lower one.
		thread = bpf_task_storage_get(&open_calls, task, 0, 0);
		if (thread)
			forget_unseen(state, thread);
		if (thread && thread->depth)
			close_left(state, thread, ctx->sp, cookie, bpf_ktime_get_ns());
		return;
	}
	thread = bpf_task_storage_get(&open_calls, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!row || !thread) {
		count(COUNT_CALLS_LOST);
		return;
	}
	count(COUNT_CALLS);
	forget_unseen(state, thread);
	outer = innermost(thread);
	if (outer && outer->sp == ctx->sp && outer->function == (u32)cookie && outer->file != COLLECTIVE_FILE(cookie))
		return;
	if (outer)
		close_left(state, thread, ctx->sp, cookie, 0);
	at = thread->depth;
	if (at >= MAX_OPEN) {
		count(COUNT_CALLS_LOST);
		return;
	}
	now = bpf_ktime_get_ns();
	if (state->some_times)
		flush_preempted(state, now);
	outer = innermost(thread);
	if (outer) {
		struct call_row *other;
		outer_number = (u16)outer->function;
		other = bpf_map_lookup_elem(&call_rows, &outer_number);
		same_library = other && other->library == row->library;
	}
	open = open_at(thread, at);
	open->start = now;
	open->seen = now;
	open->sp = ctx->sp;
	open->function = cookie;
	open->file = COLLECTIVE_FILE(cookie);
	open->at_return = cookie & COLLECTIVE_AT_RETURN;
	open->call_flags = row->call_flags | (at ? COLLECTIVE_NESTED : 0);
	open->sequence = 0;
	open->stack = 0;
	open->result = 0;
	open->known = 0;
	if (row->flags & ROW_CLOSES_GROUP && thread->groups)
		thread->groups--;
	if (row->flags & ROW_GROUPED && thread->groups)
		open->call_flags |= COLLECTIVE_NESTED;
	for (u32 i = 0; i < WIRE_CALL_VALUES; i++) {
		u64 value = 0;
		if (i < row->values && call_read(ctx, &row->value[i], &value))
			open->known |= 1 << i;
		open->values[i] = value;
	}
	at = row->communicator - 1;
	if (row->flags & ROW_COUNTED && !calls_round && !same_library && at < WIRE_CALL_VALUES && open->known & (1 << at))
		open->sequence = call_sequence(state->pid, row->library, open->values[at]);
	// Last: what is read of this thread by another is read up to here.
	thread->depth++;
}

// Reads what the call wrote behind the pointers that it was given.
static __always_inline void read_late(struct task_state *state, struct open_call *open, struct call_row *row)
{
	u32 made = row->made - 1;
	for (u32 i = 0; i < WIRE_CALL_VALUES; i++) {
		u64 value = 0;
		if (i >= row->values)
			break;
		if (!(row->value[i].how & COLLECTIVE_LATE) || !(open->known & (1 << i)))
			continue;
		if (call_word(open->values[i], row->value[i].how & COLLECTIVE_WORD ? 4 : 8, &value))
			open->values[i] = value;
		else
			open->known &= ~(1 << i);
	}
	// A new communicator may have the address of one that is gone: it begins to count anew.
	if (made < WIRE_CALL_VALUES && open->known & (1 << made)) {
		struct communicator key = { .pid = state->pid, .library = row->library };
		key.handle = communicator_handle(row->library, open->values[made]);
		bpf_map_delete_elem(&call_sequences, &key);
	}
}

static __noinline void end_call(struct pt_regs *ctx, struct task_struct *task, struct task_state *state, u64 cookie)
{
	struct thread_calls *thread = bpf_task_storage_get(&open_calls, task, 0, 0);
	u64 sp = cookie & COLLECTIVE_AT_RETURN ? ctx->sp : ctx->sp - 8;
	struct call_row *row;
	struct open_call *open;
	u32 number = (u16)cookie;
	u64 now;
	if (thread)
		forget_unseen(state, thread);
	if (!thread || !thread->depth)
		return; // it began before the recording did, or while the probes were off
	// Calls that lie deeper were left.
	close_left(state, thread, sp - 1, 0, 0);
	open = innermost(thread);
	row = bpf_map_lookup_elem(&call_rows, &number);
	// Another's exit: of a call that began before the recording, or when too many were open.
	if (!open || !row || open->sp != sp || open->function != (u32)cookie)
		return;
	now = bpf_ktime_get_ns();
	if (state->some_times)
		flush_preempted(state, now);
	if (cookie & COLLECTIVE_JUMP) {
		count(COUNT_CALLS_LOST);
		send_call(state, open, now, COLLECTIVE_OPEN | WIRE_CALL_LEFT);
		close_call(thread, now);
		return;
	}
	read_late(state, open, row);
	if (row->flags & ROW_OPENS_GROUP)
		thread->groups++;
	if (now - open->start >= stack_threshold_ns)
		open->stack = user_stack(ctx, state, SCRATCH_PROCESS);
	// C functions of the table return an int: the upper half of the register is anything.
	if (row->flags & ROW_RESULT)
		open->result = (s64)(s32)ctx->ax;
	send_call(state, open, now, row->flags & ROW_RESULT ? COLLECTIVE_RETURNED : 0);
	close_call(thread, now);
}

// The task ends, begins another program, or is no longer followed: its open calls go on, or have been left.
static __noinline void leave_calls(struct task_struct *task, struct task_state *state, u64 now)
{
	struct thread_calls *thread = bpf_task_storage_get(&open_calls, task, 0, 0);
	struct pt_regs *regs;
	u64 sp;
	if (!thread || !state)
		return;
	forget_unseen(state, thread);
	if (!thread->depth)
		return;
	// The entry of a call was the thread's last way into the kernel, or an earlier one: this is not above its frame
	// unless the frame is gone.
	regs = (struct pt_regs *)bpf_task_pt_regs(task);
	sp = BPF_CORE_READ(regs, sp);
	for (u32 i = 0; i < MAX_OPEN; i++) {
		struct open_call *open = innermost(thread);
		bool left;
		if (!open)
			return;
		left = sp > open->sp && sp - open->sp <= COLLECTIVE_SAME_STACK;
		if (left)
			count(COUNT_CALLS_LOST);
		send_call(state, open, left ? open->seen : now, COLLECTIVE_OPEN | (left ? WIRE_CALL_LEFT : 0));
		close_call(thread, left ? open->seen : now);
	}
}

static __always_inline int at_entry(struct pt_regs *ctx)
{
	struct task_struct *task;
	struct task_state *state;
	if (!recording)
		return 0;
	task = bpf_get_current_task_btf();
	state = state_of(task);
	if (state)
		begin_call(ctx, task, state, bpf_get_attach_cookie(ctx));
	return 0;
}

static __always_inline int at_exit(struct pt_regs *ctx)
{
	struct task_struct *task;
	struct task_state *state;
	if (!recording)
		return 0;
	task = bpf_get_current_task_btf();
	state = state_of(task);
	if (state)
		end_call(ctx, task, state, bpf_get_attach_cookie(ctx));
	return 0;
}

// The same two programs twice: how a program will be attached is part of loading it. Kernels from 6.6 on take all sites
// of a file in one link; older ones take a perf event for each.
SEC("uprobe.multi")
int call_entry_multi(struct pt_regs *ctx)
{
	return at_entry(ctx);
}

SEC("uprobe.multi")
int call_exit_multi(struct pt_regs *ctx)
{
	return at_exit(ctx);
}

SEC("uprobe")
int call_entry_each(struct pt_regs *ctx)
{
	return at_entry(ctx);
}

SEC("uprobe")
int call_exit_each(struct pt_regs *ctx)
{
	return at_exit(ctx);
}
