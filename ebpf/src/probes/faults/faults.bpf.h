// Page faults that read a file: which file, noted by the thread itself just before it waits for it. Counts of faults are
// the kernel's own and come with the scheduler probe.

static __always_inline void note_fault(struct task_struct *task, struct task_state *state, u64 inode)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct object_scratch *s;
	u64 now;
	if ((s64)regs->orig_ax >= 0)
		return; // a call reads, not a fault
	now = bpf_ktime_get_ns();
	// One readahead adds many pages.
	if (inode != state->fault_inode || now - state->fault_at > FAULT_FRESH_NS) {
		s = object_begin(task, 0);
		state->fault_object = s ? name_inode(s, inode) : 0;
		state->fault_inode = inode;
	}
	state->fault_at = now;
}

SEC("tp_btf/mm_filemap_add_to_page_cache")
int BPF_PROG(mm_filemap_add_to_page_cache, u64 page)
{
	struct task_struct *task;
	struct task_state *state;
	u64 mapping;
	if (!recording)
		return 0;
	task = bpf_get_current_task_btf();
	state = state_of(task);
	if (!state)
		return 0;
	// A folio from 5.16 on.
	mapping = bpf_core_type_exists(struct folio) ? FOLLOW(folio, page, mapping) : FOLLOW(page, page, mapping);
	note_fault(task, state, FOLLOW(address_space, mapping, host));
	return 0;
}

// On newer kernels: also those who wait for what another thread is reading.
SEC("tp_btf/mm_filemap_fault")
int BPF_PROG(mm_filemap_fault, struct address_space *mapping)
{
	struct task_struct *task;
	struct task_state *state;
	if (!recording)
		return 0;
	task = bpf_get_current_task_btf();
	state = state_of(task);
	if (state)
		note_fault(task, state, FOLLOW(address_space, mapping, host));
	return 0;
}
