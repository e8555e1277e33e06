// Sampled launches: the agent in a process fires its USDT site `stallscope:launch` for some of the launches, with CUPTI's
// correlation id in edi and the number of the call in esi (what the note of the site says is checked before attaching).
// A launch that is not sampled does not come here.

static __always_inline int at_launch(struct pt_regs *ctx)
{
	struct wire_launch record = {};
	struct task_state *state;
	if (!recording)
		return 0;
	state = state_of(bpf_get_current_task_btf());
	if (!state)
		return 0;
	record.head.kind = WIRE_TYPE_LAUNCH;
	record.head.task = state->id;
	record.time_ns = bpf_ktime_get_ns();
	record.correlation = (u32)ctx->di;
	record.call = (u32)ctx->si;
	record.stack = user_stack_as(ctx, state, SCRATCH_PROCESS, WIRE_STACK_LAUNCH);
	// Nobody's time is missing where a sample is: it is not accounted to the task.
	send(&record, sizeof(record));
	return 0;
}

// The same program twice, as those on collective calls: how it will be attached is part of loading it.
SEC("uprobe.multi")
int launch_multi(struct pt_regs *ctx)
{
	return at_launch(ctx);
}

SEC("uprobe")
int launch_each(struct pt_regs *ctx)
{
	return at_launch(ctx);
}
