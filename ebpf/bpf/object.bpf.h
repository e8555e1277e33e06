// What a call's descriptor stands for.
#ifndef STALLSCOPE_OBJECT_H
#define STALLSCOPE_OBJECT_H

static __always_inline void resolve_object(struct task_struct *task, struct task_state *state)
{
}

#endif
