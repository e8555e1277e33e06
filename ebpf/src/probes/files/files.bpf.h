// Calls and bytes by file: what every read and write of a followed thread returned, whether it waited or not.
//
// Added up where the thread remembers its descriptors, then in a map by thread and object (object.bpf.h), and told when
// the recorder asks (gather_file_io, then report_file_io): the sums since the last time.

// Entries are taken out when they had nothing to tell so many times: one that a thread is just adding to would lose that.
#define FILE_IDLE 2

static __always_inline void add_file_io(struct task_struct *task, struct task_state *state, u32 fd, bool write,
					u64 bytes)
{
	struct fd_slot *slot = slot_of(task, state, fd);
	struct file_key key = { .task = state->id };
	if (!slot) {
		// It cannot be named, or was closed while it was read.
		struct file_sums *sums = sums_of(&key);
		if (!sums)
			return;
		__sync_fetch_and_add(write ? &sums->writes : &sums->reads, 1);
		__sync_fetch_and_add(write ? &sums->written_bytes : &sums->read_bytes, bytes);
	} else if (write) {
		__sync_fetch_and_add(&slot->writes, 1);
		__sync_fetch_and_add(&slot->written_bytes, bytes);
	} else {
		__sync_fetch_and_add(&slot->reads, 1);
		__sync_fetch_and_add(&slot->read_bytes, bytes);
	}
}

// At the return of a call.
static __always_inline void account_call(struct task_struct *task, struct task_state *state, struct pt_regs *regs,
					 long result)
{
	u32 class, from, to;
	if (!want_files || result < 0)
		return;
	class = class_of_call(regs->orig_ax);
	if (class < CALL_READ || class > CALL_SENDFILE || is_compat(task))
		return;
	if (class <= CALL_WRITE) {
		add_file_io(task, state, regs->di, class == CALL_WRITE, result);
		return;
	}
	from = class == CALL_SENDFILE ? regs->si : regs->di;
	to = class == CALL_SENDFILE ? regs->di : regs->dx;
	add_file_io(task, state, from, false, result);
	add_file_io(task, state, to, true, result);
}

// Adds what each thread has to the sums.
SEC("iter/task")
int gather_file_io(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_state *state;
	if (!task)
		return 0;
	state = bpf_task_storage_get(&tasks, task, 0, 0);
	if (state)
		empty_slots(state);
	return 0;
}

// Tells the sums of one thread and object. What does not fit into the ring is kept for the next time.
SEC("iter/bpf_map_elem")
int report_file_io(struct bpf_iter__bpf_map_elem *ctx)
{
	struct wire_file_io record = {};
	struct file_key key, *found = ctx->key;
	struct file_sums *sums;
	if (!found)
		return 0;
	key = *found;
	sums = bpf_map_lookup_elem(&file_io, &key);
	if (!sums)
		return 0;
	record.head.kind = WIRE_TYPE_FILE_IO;
	record.head.task = key.task;
	record.time_ns = bpf_ktime_get_ns();
	record.object = key.object;
	record.reads = __sync_lock_test_and_set(&sums->reads, 0);
	record.read_bytes = __sync_lock_test_and_set(&sums->read_bytes, 0);
	record.writes = __sync_lock_test_and_set(&sums->writes, 0);
	record.written_bytes = __sync_lock_test_and_set(&sums->written_bytes, 0);
	if (!record.reads && !record.writes) {
		if (++sums->idle >= FILE_IDLE)
			bpf_map_delete_elem(&file_io, &key);
		return 0;
	}
	sums->idle = 0;
	if (!send(&record, sizeof(record))) {
		__sync_fetch_and_add(&sums->reads, record.reads);
		__sync_fetch_and_add(&sums->read_bytes, record.read_bytes);
		__sync_fetch_and_add(&sums->writes, record.writes);
		__sync_fetch_and_add(&sums->written_bytes, record.written_bytes);
	}
	return 0;
}
