// The frames of a CPython interpreter. See src/python for where the offsets come from.
#ifndef STALLSCOPE_PYTHON_H
#define STALLSCOPE_PYTHON_H

struct stack_scratch;

static __always_inline u32 python_walk(struct task_state *state, struct stack_scratch *s)
{
	return 0;
}

#endif
