// On-CPU samples: a perf event on each CPU interrupts at a fixed rate; followed threads give their stacks.

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	struct wire_sample record = {};
	struct task_state *state;
	if (!recording)
		return 0;
	state = state_of(bpf_get_current_task_btf());
	if (!state)
		return 0;
	record.head.kind = WIRE_TYPE_SAMPLE;
	record.head.task = state->id;
	record.time_ns = bpf_ktime_get_ns();
	record.period_ns = sample_period_ns;
	record.stack = user_stack(ctx, state, SCRATCH_SAMPLE);
	record.kernel_stack = kernel_stack(ctx, state, SCRATCH_SAMPLE);
	send_timed(state, &record, sizeof(record), record.time_ns, record.time_ns);
	return 0;
}
