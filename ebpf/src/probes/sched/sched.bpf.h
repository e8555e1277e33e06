// Scheduler: who was off the CPU, why, who woke it, who ran instead.
//
// One record for each wait, sent when the thread is back (or, inside a system call, when the call returns: its result
// and its user stack are known then, and only waits that turned out long pay for a stack). Preemption is added up.

// Bytes of a kernel stack.
#define STACK_BYTES 16384
// Priorities below this are of real-time tasks.
#define MAX_RT_PRIO 100

// Whether this runs on the current task's own kernel stack. Interrupts of the kernel run on a stack of their own, soft
// ones too, and a program's context lies on the stack that it runs on.
static __always_inline bool on_own_stack(void *ctx, struct task_struct *current, struct task_state *state)
{
	// By way of memory: the verifier has no arithmetic on contexts, and allows their addresses as numbers.
	state->scratch = (u64)ctx;
	barrier();
	return state->scratch - (u64)current->stack < STACK_BYTES;
}

// Whether the current context is an interrupt: then "current" did not wake anybody. Interrupts from user mode run on the
// thread's own stack, which is empty then; a call would have left its number. Page faults leave none either: those whom a
// thread wakes in one are taken to be woken by an interrupt.
static __always_inline bool in_interrupt(void *ctx, struct task_struct *current, struct task_state *state)
{
	struct pt_regs *regs;
	if (!on_own_stack(ctx, current, state))
		return true;
	regs = (struct pt_regs *)bpf_task_pt_regs(current);
	return current->mm && (s64)regs->orig_ax < 0;
}

// Whether a process is in a system call, interrupted there or not.
static __always_inline bool in_call(struct task_struct *current)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(current);
	return current->mm && (s64)regs->orig_ax >= 0;
}

static __always_inline bool is_throttled(struct task_struct *task)
{
	if (bpf_core_field_exists(task->throttled) && BPF_CORE_READ_BITFIELD_PROBED(task, throttled))
		return true;
	return bpf_core_field_exists(struct cfs_rq, throttle_count) && task->se.cfs_rq->throttle_count > 0;
}

// From 6.6 on the kernel counts for how long in all a queue has been throttled while it had tasks.
static __always_inline bool counts_throttling(void)
{
	return bpf_core_field_exists(struct cfs_rq, throttled_clock_self_time);
}

// Of the queue that the task is on or was taken off.
static __always_inline u64 throttled_time(struct task_struct *task)
{
	return counts_throttling() ? task->se.cfs_rq->throttled_clock_self_time : 0;
}

// Of the queue that the task was taken off, which need not be the one that it is on by now.
static __always_inline u64 throttled_time_then(struct task_struct *task, struct task_state *state)
{
	u64 queue = state->queue;
	if (!counts_throttling())
		return 0;
	if ((u64)task->se.cfs_rq == queue)
		return task->se.cfs_rq->throttled_clock_self_time;
	return BPF_CORE_READ((struct cfs_rq *)queue, throttled_clock_self_time);
}

// Sends the sum of the short run-queue stretches up to `until`.
static __noinline void flush_preempted(struct task_state *state, u64 until)
{
	struct wire_preempt record = {};
	if (!state || !state->some_times)
		return;
	record.head.kind = WIRE_TYPE_PREEMPT;
	record.head.task = state->id;
	record.start_ns = state->some_since;
	record.duration_ns = until - state->some_since;
	record.run_queue_ns = state->some_run_queue;
	record.times = state->some_times;
	record.preemptor = state->top_preemptor;
	record.kind = WIRE_WAIT_PREEMPTED;
	send_timed(state, &record, sizeof(record), record.start_ns, until);
	state->some_times = 0;
	state->some_run_queue = 0;
	state->top_preemptor = 0;
	state->top_preempted = 0;
}

static __always_inline void send_wait(struct task_state *state)
{
	struct wire_wait_record *record = &state->pending.record;
	state->pending.valid = false;
	send_timed(state, record, sizeof(*record), record->start_ns, record->start_ns + record->duration_ns);
}

// Sends the wait that was held back until its call returns.
static __noinline void flush_wait(struct task_state *state)
{
	if (state && state->pending.valid)
		send_wait(state);
}

static __noinline void flush_faults(struct task_struct *task, struct task_state *state, u64 now)
{
	struct wire_faults record = {};
	u64 minor, major;
	if (!state)
		return;
	minor = BPF_CORE_READ(task, min_flt);
	major = BPF_CORE_READ(task, maj_flt);
	if (minor == state->min_flt && major == state->maj_flt) {
		state->faults_since = now;
		return;
	}
	record.head.kind = WIRE_TYPE_FAULTS;
	record.head.task = state->id;
	record.start_ns = state->faults_since;
	record.duration_ns = now - state->faults_since;
	record.minor = minor - state->min_flt;
	record.major = major - state->maj_flt;
	if (send(&record, sizeof(record))) {
		state->min_flt = minor;
		state->maj_flt = major;
		state->faults_since = now;
	}
}

// The kernel did not tell of a switch: it leaves out some while others attach to the same tracepoint or take themselves
// off. On a CPU or not, for how long of this stretch is not known.
static __noinline void missed(struct task_state *state, u64 from, u64 to)
{
	struct wire_loss loss = {};
	if (!state)
		return;
	count(COUNT_SWITCH_MISSED);
	loss.head.kind = WIRE_TYPE_LOSS;
	loss.head.flags = WIRE_LOSS_MISSED;
	loss.head.task = state->id;
	loss.start_ns = from;
	loss.duration_ns = to - from;
	loss.records = 1;
	if (!send(&loss, sizeof(loss)))
		note_loss(state, from, to);
}

// Begins to follow a task. Process context only.
static __noinline struct task_state *follow(struct task_struct *task, u16 flags)
{
	struct wire_task record = {};
	struct task_state *state;
	u64 now;
	state = bpf_task_storage_get(&tasks, task, 0, 0);
	if (state)
		return state->gone ? 0 : state;
	if (task_count >= max_tasks) {
		count(COUNT_TASKS_FULL);
		return 0;
	}
	state = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!state) {
		count(COUNT_TASKS_FULL);
		return 0;
	}
	now = bpf_ktime_get_ns();
	__sync_fetch_and_add(&task_count, 1);
	state->tid = BPF_CORE_READ(task, pid);
	state->pid = BPF_CORE_READ(task, tgid);
	state->call = -1;
	state->faults_since = now;
	state->on_since = now;
	state->min_flt = BPF_CORE_READ(task, min_flt);
	state->maj_flt = BPF_CORE_READ(task, maj_flt);
	state->id = __sync_fetch_and_add(&last_task_id, 1) + 1;
	record.head.kind = WIRE_TYPE_TASK;
	record.head.flags = flags | (state->tid == state->pid ? WIRE_TASK_LEADER : 0);
	record.head.task = state->id;
	record.time_ns = now;
	record.tid = state->tid;
	record.pid = state->pid;
	record.ppid = BPF_CORE_READ(task, real_parent, tgid);
	record.born_ns = BPF_CORE_READ(task, start_boottime);
	bpf_probe_read_kernel(record.comm, sizeof(record.comm), &task->comm);
	send(&record, sizeof(record));
	return state;
}

// What the task waits in, from the registers that it entered the kernel with.
static __always_inline void note_call(struct task_struct *task, struct task_state *state)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	s64 number = (s64)regs->orig_ax;
	if (number < 0) {
		state->call = -1;
		return;
	}
	state->call = number;
	state->fd = regs->di;
	state->wanted = regs->dx;
	state->object = regs->di;
	state->object_kind = 0;
}

#include "object.bpf.h"

static __always_inline void switched_out(void *ctx, bool preempt, struct task_struct *task,
					 struct task_state *state, u64 now)
{
	u32 why = task->__state;
	if (state->off_since)
		missed(state, state->off_since, now);
	state->off_since = now;
	state->woken_at = 0;
	state->waker = 0;
	state->waker_stack = 0;
	state->waker_flags = 0;
	if (now - state->faults_since >= faults_window_ns)
		flush_faults(task, state, now);
	if (preempt || !why) {
		state->off_kind = is_throttled(task) ? WIRE_WAIT_THROTTLED : WIRE_WAIT_PREEMPTED;
		state->queue = (u64)task->se.cfs_rq;
		state->throttled_time = throttled_time(task);
		return;
	}
	// A wait follows: whatever was held back is over.
	if (state->pending.valid) {
		state->in_call = true;
		flush_wait(state);
	}
	if (state->some_times)
		flush_preempted(state, now);
	if (why & TASK_STOPPED_OR_TRACED) {
		state->off_kind = WIRE_WAIT_STOPPED;
		state->call = -1;
		return;
	}
	note_call(task, state);
	if (state->call >= 0) {
		state->off_kind = WIRE_WAIT_SYSCALL;
		// The same call on the same descriptor as a moment ago: see resolve_object.
		if (state->call == state->trusted_call && state->fd == (s32)state->trusted_fd &&
		    now < state->trusted_until) {
			state->object = state->trusted_object;
			state->object_kind = state->trusted_kind;
			state->on_trust = true;
			return;
		}
		resolve_object(task, state, now);
		return;
	}
	// Outside of a call there is no return to wait for: the stack is taken now, in the hope of a fault that matters.
	state->off_kind = task->mm ? WIRE_WAIT_FAULT : WIRE_WAIT_KERNEL;
	state->object = now - state->fault_at <= FAULT_FRESH_NS ? state->fault_object : 0;
	state->object_kind = state->object ? OBJECT_FILE : OBJECT_NONE;
	state->page_fault_stack = user_stack(ctx, state, SCRATCH_SWITCH);
}

// The task that ran last before this one, where it ran for most of the time that this one was runnable: who ran for a
// moment in between is not to blame, and of several that took turns none is.
static __always_inline u32 ran_instead(struct task_struct *before, struct task_state *before_state, u64 length)
{
	u64 ran;
	// What real-time tasks ran is not counted by the stretch, and is short where they are the kernel's.
	if (!bpf_core_field_exists(before->se.prev_sum_exec_runtime) || before->prio < MAX_RT_PRIO)
		return 0;
	ran = before->se.sum_exec_runtime - before->se.prev_sum_exec_runtime;
	return ran * 2 >= length ? name_of(before, before_state) : 0;
}

// A stretch in which the task was runnable and did not run.
static __noinline void preempted(struct task_state *state, u32 kind, u64 from, u64 now, u32 by)
{
	u64 length = now - from;
	if (!state)
		return;
	if (kind == WIRE_WAIT_THROTTLED || length >= long_preempt_ns) {
		struct wire_preempt record = {};
		flush_preempted(state, from);
		record.head.kind = WIRE_TYPE_PREEMPT;
		record.head.task = state->id;
		record.start_ns = from;
		record.duration_ns = length;
		record.run_queue_ns = length;
		record.times = 1;
		record.preemptor = by;
		record.kind = kind;
		send_timed(state, &record, sizeof(record), from, now);
		return;
	}
	if (!state->some_times)
		state->some_since = from;
	state->some_times++;
	state->some_run_queue += length;
	if (by && by == state->top_preemptor) {
		state->top_preempted += length;
	} else if (length > state->top_preempted) {
		state->top_preempted = length - state->top_preempted;
		state->top_preemptor = by;
	} else {
		state->top_preempted -= length;
	}
	if (now - state->some_since >= preempt_window_ns)
		flush_preempted(state, now);
}

// Back from being preempted or throttled: both, where others were to run before it once the throttling ended. A queue that
// is throttled lets its tasks run on until they leave the kernel, so that being taken off it says little by itself.
static __always_inline void back_from_queue(struct task_struct *task, struct task_state *state, u64 from, u64 now,
					    u32 by)
{
	// It may be back from another CPU's queue: the one that it was taken off is what counts.
	u64 throttled = throttled_time_then(task, state) - state->throttled_time;
	if (throttled > now - from || (!counts_throttling() && state->off_kind == WIRE_WAIT_THROTTLED))
		throttled = now - from;
	if (throttled)
		preempted(state, WIRE_WAIT_THROTTLED, from, from + throttled, 0);
	if (throttled < now - from)
		preempted(state, WIRE_WAIT_PREEMPTED, from + throttled, now, by);
}

// Waking an idle CPU takes no longer; what is runnable for longer waited for another CPU first.
#define IDLE_EXIT_NS 1000000

// Waits at least this long have their descriptor looked at for certain.
#define SURE_NS 20000

static __always_inline void switched_in(struct task_struct *task, struct task_state *state,
					struct task_struct *before, struct task_state *before_state, u64 now)
{
	struct wire_wait_record *record = &state->pending.record;
	u64 from = state->off_since, woken = state->woken_at;
	u32 by;
	if (!from)
		missed(state, state->on_since, now);
	state->on_since = now;
	if (!from)
		return;
	state->off_since = 0;
	if (state->off_kind >= WIRE_WAIT_PREEMPTED) {
		by = ran_instead(before, before_state, now - from);
		back_from_queue(task, state, from, now, by);
		return;
	}
	by = woken && now - woken > 1000 ? ran_instead(before, before_state, now - woken) : 0;
	if (!woken || woken < from)
		woken = now;
	// A wait that matters is about what it is about, not about what the descriptor was a moment before.
	if (state->on_trust && woken - from >= SURE_NS) {
		resolve_object(task, state, now);
		state->on_trust = false;
	}
	record->head.kind = WIRE_TYPE_WAIT;
	record->head.task = state->id;
	record->head.flags = state->waker_flags | (state->in_call ? WIRE_WAIT_CONTINUED : 0);
	record->start_ns = from;
	record->duration_ns = now - from;
	record->run_queue_ns = now - woken;
	if (!before->pid && now - woken < IDLE_EXIT_NS)
		record->head.flags |= WIRE_WAIT_FROM_IDLE;
	record->stack = state->off_kind == WIRE_WAIT_FAULT ? state->page_fault_stack : 0;
	record->kernel_stack = 0;
	record->waker_stack = state->waker_stack;
	record->object = state->object;
	record->object_kind = state->object_kind;
	record->result = 0;
	record->waker = state->waker;
	record->preemptor = by;
	record->call = state->off_kind == WIRE_WAIT_SYSCALL ? state->call : -1;
	record->fd = record->call >= 0 ? state->fd : -1;
	record->wanted = state->wanted;
	record->kind = state->off_kind;
	record->reserved = 0;
	if (state->off_kind == WIRE_WAIT_STOPPED) {
		record->object = 0;
		record->object_kind = 0;
	}
	if (record->call >= 0 && state->compat)
		record->head.flags |= WIRE_WAIT_COMPAT;
	if (woken - from >= stack_threshold_ns)
		record->kernel_stack = sleeper_stack(task, state, woken - from);
	if (!want_syscalls || state->off_kind != WIRE_WAIT_SYSCALL)
		send_wait(state);
	else
		state->pending.valid = true;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	struct task_state *out, *in;
	u64 now = 0;
	if (!recording)
		return 0;
	out = state_of(prev);
	if (out) {
		now = bpf_ktime_get_ns();
		switched_out(ctx, preempt, prev, out, now);
	}
	in = state_of(next);
	if (in)
		switched_in(next, in, prev, out, now ? now : bpf_ktime_get_ns());
	return 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(sched_waking, struct task_struct *task)
{
	struct task_state *state, *waker;
	struct task_struct *current;
	u64 now;
	if (!recording)
		return 0;
	state = state_of(task);
	if (!state || !state->off_since || state->woken_at)
		return 0;
	now = bpf_ktime_get_ns();
	state->woken_at = now;
	current = bpf_get_current_task_btf();
	// One that is on its way out still wakes those that wait for its end.
	waker = bpf_task_storage_get(&tasks, current, 0, 0);
	state->waker = name_of(current, waker);
	if (in_interrupt(ctx, current, state)) {
		state->waker_flags |= WIRE_WAIT_IRQ_WAKER | (in_call(current) ? WIRE_WAIT_IRQ_IN_CALL : 0);
		return 0;
	}
	if (waker && !waker->gone && now - state->off_since >= stack_threshold_ns)
		state->waker_stack = user_stack(ctx, waker, SCRATCH_WAKE);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct task_state *state;
	u32 pid, one = 1;
	if (!recording || !state_of(parent))
		return 0;
	pid = BPF_CORE_READ(child, tgid);
	bpf_map_update_elem(&followed, &pid, &one, BPF_ANY);
	python_fork(BPF_CORE_READ(parent, tgid), pid);
	state = follow(child, WIRE_TASK_FORKED);
	// It is about to be put on a run queue.
	if (state) {
		state->off_kind = WIRE_WAIT_PREEMPTED;
		state->off_since = state->faults_since;
	}
	return 0;
}

// In collectives.bpf.h: sends the calls of the task that are open.
static __noinline void leave_calls(struct task_struct *task, struct task_state *state, u64 now);

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task)
{
	struct task_state *state = state_of(task);
	struct wire_moment record = {};
	if (!recording || !state)
		return 0;
	// All threads but this one are gone, and this one may have taken over the leader's tid.
	state->tid = BPF_CORE_READ(task, pid);
	state->python_thread = 0;
	python_forget(state->pid);
	leave_calls(task, state, bpf_ktime_get_ns());
	flush_wait(state);
	record.head.kind = WIRE_TYPE_EXEC;
	record.head.task = state->id;
	record.time_ns = bpf_ktime_get_ns();
	bpf_probe_read_kernel(record.comm, sizeof(record.comm), &task->comm);
	send(&record, sizeof(record));
	return 0;
}

// Sends all that is known of a task that is no longer followed.
static __noinline void leave(struct task_struct *task, struct task_state *state, u64 now)
{
	struct wire_moment record = {};
	if (!state)
		return;
	leave_calls(task, state, now);
	flush_wait(state);
	flush_preempted(state, now);
	flush_faults(task, state, now);
	if (want_files)
		empty_slots(state);
	report_loss(state);
	record.head.kind = WIRE_TYPE_TASK_END;
	record.head.task = state->id;
	record.time_ns = now;
	bpf_probe_read_kernel(record.comm, sizeof(record.comm), &task->comm);
	send(&record, sizeof(record));
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	struct task_state *state = state_of(task);
	u64 now;
	u32 pid;
	if (!recording || !state)
		return 0;
	now = bpf_ktime_get_ns();
	if (state->off_since)
		missed(state, state->off_since, now);
	leave(task, state, now);
	__sync_fetch_and_sub(&task_count, 1);
	if (state->tid == state->pid) {
		pid = state->pid;
		bpf_map_delete_elem(&followed, &pid);
		python_forget(pid);
	}
	state->gone = true;
	return 0;
}

// A thread that is off the CPU when it begins to be followed will not be seen leaving it.
static __noinline void began_before(struct task_struct *task, struct task_state *state)
{
	u32 why;
	if (!state || state->off_since || BPF_CORE_READ(task, on_cpu))
		return;
	why = BPF_CORE_READ(task, __state);
	state->woken_at = 0;
	state->waker = 0;
	state->waker_flags = WIRE_WAIT_BEGAN_BEFORE;
	if (!why) {
		state->off_kind = WIRE_WAIT_PREEMPTED;
	} else if (why & TASK_STOPPED_OR_TRACED) {
		state->off_kind = WIRE_WAIT_STOPPED;
	} else {
		note_call(task, state);
		state->off_kind = state->call >= 0 ? WIRE_WAIT_SYSCALL : task->mm ? WIRE_WAIT_FAULT : WIRE_WAIT_KERNEL;
		if (state->call >= 0)
			resolve_object(task, state, state->faults_since);
	}
	state->off_since = state->faults_since;
	// It may have gone on a CPU meanwhile: then its next switch out is the first that counts.
	if (BPF_CORE_READ(task, on_cpu))
		state->off_since = 0;
}

// At attach: follows the threads that are there.
SEC("iter/task")
int follow_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state;
	u32 pid;
	if (!task)
		return 0;
	pid = task->tgid;
	if (!bpf_map_lookup_elem(&followed, &pid))
		return 0;
	state = follow(task, 0);
	if (state)
		began_before(task, state);
	return 0;
}

// At the end: sends what is pending of each thread, and the waits that go on.
SEC("iter/task")
int leave_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state;
	u64 from, now;
	if (!task)
		return 0;
	state = state_of(task);
	if (!state)
		return 0;
	// In this order: it may leave the CPU at any moment, and what began must not lie after what is now.
	from = *(volatile u64 *)&state->off_since;
	now = bpf_ktime_get_ns();
	if (from) {
		if (state->off_kind >= WIRE_WAIT_PREEMPTED) {
			state->off_since = 0;
			// Throttling is counted when it ends.
			if (is_throttled(task))
				preempted(state, WIRE_WAIT_THROTTLED, from, now, 0);
			else
				back_from_queue(task, state, from, now, 0);
		} else {
			if (state->pending.valid)
				flush_wait(state);
			state->waker_flags |= WIRE_WAIT_GOES_ON;
			switched_in(task, state, task, state, now);
		}
	}
	leave(task, state, now);
	return 0;
}
