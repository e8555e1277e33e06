// Sampled launches: the agent in a process fires its USDT site `stallscope:launch` for some of the launches, with CUPTI's
// correlation id in edi and the number of the call in esi (what the note of the site says is checked before attaching).
// A launch that is not sampled does not come here.

// As user_stack.
static __noinline u64 launch_stack(void *ctx, struct task_state *state)
{
	struct stack_scratch *s;
	u32 slot = SCRATCH_PROCESS;
	long bytes;
	if (!want_stacks || !state)
		return 0;
	s = bpf_map_lookup_elem(&scratch, &slot);
	if (!s)
		return 0;
	s->record.head.flags = WIRE_STACK_LAUNCH;
	bytes = bpf_get_stack(ctx, s->frames, sizeof(s->frames), BPF_F_USER_STACK);
	s->record.native = bytes > 0 ? (u64)bytes / 8 : 0;
	s->record.python = python_walk(state, s);
	if (bytes <= 0 && !s->record.python) {
		count(COUNT_STACK_LOST);
		return 0;
	}
	return finish_stack(s, state->id, state->pid);
}

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
	record.stack = launch_stack(ctx, state);
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
