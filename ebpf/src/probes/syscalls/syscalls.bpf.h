// System calls: completes a wait that was held back, with the call's result and the caller's stack, and adds up what
// reads and writes moved (files.bpf.h).
//
// Which call a thread waits in is read from its saved registers when it leaves the CPU, so that calls which do not wait
// cost nothing but this hook's first test.

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct task_struct *task;
	struct task_state *state;
	struct wire_wait_record *record;
	if (!recording)
		return 0;
	task = bpf_get_current_task_btf();
	state = state_of(task);
	if (!state)
		return 0;
	state->in_call = false;
	account_call(task, state, regs, result);
	if (!state->pending.valid)
		return 0;
	record = &state->pending.record;
	// A wait that was over when this probe came may be followed by the return of another call.
	if (record->call != (s32)regs->orig_ax) {
		flush_wait(state);
		return 0;
	}
	record->head.flags |= WIRE_WAIT_RETURNED;
	record->result = result;
	if (record->duration_ns - record->run_queue_ns >= stack_threshold_ns)
		record->stack = user_stack(ctx, state, SCRATCH_PROCESS);
	flush_wait(state);
	return 0;
}
