// Records that the kernel half sends to the recorder through the ring buffers. One definition: `cargo xtask codegen`
// makes schemas/src/wire.rs of it, and CI fails where the two differ.
//
// Grammar that the generator reads: `///` comments, `#define WIRE_NAME number`, `enum wire_x { WIRE_X_Y = n, };` and
// structs of __u8 … __s64 scalars and arrays of them. Fields are ordered so that nothing is padded.
//
// Times are CLOCK_MONOTONIC in ns. Tasks are named by numbers that the kernel half gives out once per followed thread:
// a tid is reused, these are not.
#ifndef STALLSCOPE_WIRE_HOST_H
#define STALLSCOPE_WIRE_HOST_H

/// Set in a task number that stands for a thread outside of the job: the other bits are its tid.
#define WIRE_OUTSIDE 0x80000000
/// Frames of one kind in a stack, at most.
#define WIRE_MAX_FRAMES 127
/// Bytes of a path or a socket address, at most.
#define WIRE_MAX_PATH 240
/// Bytes of a task name.
#define WIRE_COMM 16
/// Values of a collective call, at most.
#define WIRE_CALL_VALUES 8

/// What follows a record's head.
enum wire_record {
	/// A thread is followed from now on, or (outside) was met as a waker or preemptor.
	WIRE_TYPE_TASK = 1,
	/// A followed thread ended, or is no longer followed.
	WIRE_TYPE_TASK_END = 2,
	/// A followed process began another program.
	WIRE_TYPE_EXEC = 3,
	/// A thread left the CPU to wait and is back.
	WIRE_TYPE_WAIT = 4,
	/// A thread was runnable and did not run.
	WIRE_TYPE_PREEMPT = 5,
	/// A thread was found on a CPU.
	WIRE_TYPE_SAMPLE = 6,
	/// A stack that later records refer to.
	WIRE_TYPE_STACK = 7,
	/// An object (file, socket …) that later records refer to.
	WIRE_TYPE_OBJECT = 8,
	/// Records of a thread were lost.
	WIRE_TYPE_LOSS = 9,
	/// A request to a block device was completed.
	WIRE_TYPE_BLOCK_IO = 10,
	/// A call into a collective library returned, or was left.
	WIRE_TYPE_CALL = 11,
	/// What a process did with a file since it was last asked.
	WIRE_TYPE_FILE_IO = 12,
	/// What a connection has done since it was opened.
	WIRE_TYPE_CONNECTION = 13,
	/// Page faults of a thread.
	WIRE_TYPE_FAULTS = 14,
	/// A launch of which the agent in the process took a sample.
	WIRE_TYPE_LAUNCH = 15,
};

/// Why a thread was off the CPU: the numbers of record::WaitKind.
enum wire_wait {
	WIRE_WAIT_UNKNOWN = 0,
	WIRE_WAIT_SYSCALL = 1,
	WIRE_WAIT_FAULT = 2,
	WIRE_WAIT_STOPPED = 3,
	WIRE_WAIT_KERNEL = 4,
	WIRE_WAIT_PREEMPTED = 5,
	WIRE_WAIT_THROTTLED = 6,
};

/// Bits of a wait's flags: those of record::wait_flags, then some of the wire's own.
enum wire_wait_flag {
	WIRE_WAIT_IRQ_WAKER = 1,
	WIRE_WAIT_RETURNED = 2,
	WIRE_WAIT_BEGAN_BEFORE = 4,
	WIRE_WAIT_GOES_ON = 8,
	WIRE_WAIT_CONTINUED = 16,
	WIRE_WAIT_FROM_IDLE = 32,
	/// The call was made through the 32-bit system call table.
	WIRE_WAIT_COMPAT = 256,
	/// The interrupt that ended it came while the task was in a system call: one that sends runs the soft interrupt
	/// that delivers.
	WIRE_WAIT_IRQ_IN_CALL = 1024,
};

/// Bits of a task's flags.
enum wire_task_flag {
	/// The thread was forked by a followed one (else it was there before).
	WIRE_TASK_FORKED = 1,
	/// The thread is the first of its process.
	WIRE_TASK_LEADER = 2,
};

/// Bits of a stack's flags.
enum wire_stack_flag {
	/// The native part ends before its thread's outermost frame, as far as can be told.
	WIRE_STACK_CUT = 1,
	/// The Python part is longer than is recorded, or changed while it was read.
	WIRE_STACK_PYTHON_CUT = 2,
	/// Native frames are kernel addresses.
	WIRE_STACK_KERNEL = 4,
	/// The innermost native frame is the site in the agent, which is no part of the job.
	WIRE_STACK_LAUNCH = 8,
};

/// Bits of an object's flags.
enum wire_object_flag {
	/// The file has no name any more.
	WIRE_OBJECT_DELETED = 1,
	/// The outermost components of the path did not fit.
	WIRE_OBJECT_CUT = 2,
	/// `path` is one string, as the caller or the owner of the socket gave it, and not components.
	WIRE_OBJECT_WHOLE = 4,
	/// `path` is the name of a Unix socket's peer, not its own.
	WIRE_OBJECT_PEER_NAME = 8,
	/// A TCP socket that waits for others to connect.
	WIRE_OBJECT_LISTENING = 16,
	/// The path begins at the root of the file system: where that is mounted is not known.
	WIRE_OBJECT_UNMOUNTED = 32,
};

/// Bits of a call's flags that only the wire has.
enum wire_call_flag {
	/// The frame was gone when the thread was next looked at: an exception or a jump left the call. The duration is
	/// the part that was seen.
	WIRE_CALL_LEFT = 256,
};

/// Bits of a loss's flags.
enum wire_loss_flag {
	/// The kernel did not tell of something (else there was no room for a record).
	WIRE_LOSS_MISSED = 1,
	/// A collective call was open when its probes were taken off.
	WIRE_LOSS_PAUSED = 2,
};

/// Begin of every record.
struct wire_head {
	/// A wire_record.
	__u16 kind;
	/// Flags of the type.
	__u16 flags;
	/// The task that the record is about.
	__u32 task;
};

/// WIRE_TYPE_TASK
struct wire_task {
	struct wire_head head;
	/// From when on the thread is followed.
	__u64 time_ns;
	/// Its tid in the recorder's pid namespace.
	__u32 tid;
	/// Its pid (thread group).
	__u32 pid;
	/// Pid of its parent process.
	__u32 ppid;
	/// Unused.
	__u32 reserved;
	/// When it began, CLOCK_BOOTTIME: with the tid, an identity that outlives reuse.
	__u64 born_ns;
	/// Its name.
	__u8 comm[WIRE_COMM];
};

/// WIRE_TYPE_TASK_END and WIRE_TYPE_EXEC
struct wire_moment {
	struct wire_head head;
	/// When.
	__u64 time_ns;
	/// Its name from now on (exec).
	__u8 comm[WIRE_COMM];
};

/// WIRE_TYPE_WAIT
struct wire_wait_record {
	struct wire_head head;
	/// When it left the CPU.
	__u64 start_ns;
	/// Until it was on one again.
	__u64 duration_ns;
	/// Time at the end in which it was runnable.
	__u64 run_queue_ns;
	/// User stack of the waiting thread (WIRE_TYPE_STACK id), 0 where not taken.
	__u64 stack;
	/// Its kernel stack, likewise.
	__u64 kernel_stack;
	/// User stack of the waker when it did.
	__u64 waker_stack;
	/// Object (WIRE_TYPE_OBJECT id); for a futex its address.
	__u64 object;
	/// Return value of the call.
	__s64 result;
	/// Task that ended the wait, 0 where unknown.
	__u32 waker;
	/// Task that ran until this one did.
	__u32 preemptor;
	/// Number of the system call, or -1.
	__s32 call;
	/// First argument of the call: for most a file descriptor.
	__s32 fd;
	/// A wire_wait.
	__u8 kind;
	/// An ObjectKind.
	__u8 object_kind;
	/// More flags of the kind wire_wait_flag than the head has room for: unused.
	__u16 reserved;
	/// Bytes or entries that the call asked for (third argument).
	__u32 wanted;
};

/// WIRE_TYPE_PREEMPT
struct wire_preempt {
	struct wire_head head;
	/// Begin of the stretch.
	__u64 start_ns;
	/// Its length.
	__u64 duration_ns;
	/// Time in it in which the thread was runnable and did not run.
	__u64 run_queue_ns;
	/// How often.
	__u32 times;
	/// Task that ran most of that time.
	__u32 preemptor;
	/// A wire_wait: preempted or throttled.
	__u32 kind;
	/// Unused.
	__u32 reserved;
};

/// WIRE_TYPE_SAMPLE
struct wire_sample {
	struct wire_head head;
	/// When.
	__u64 time_ns;
	/// Time that it stands for.
	__u64 period_ns;
	/// User stack.
	__u64 stack;
	/// Kernel stack, 0 where it ran in user mode.
	__u64 kernel_stack;
};

/// WIRE_TYPE_STACK: followed by `native` addresses and then by `python` pairs of code object and instruction offset,
/// innermost first.
struct wire_stack {
	struct wire_head head;
	/// What records call it.
	__u64 id;
	/// Native frames.
	__u16 native;
	/// Python frames.
	__u16 python;
	/// Unused.
	__u32 reserved;
};

/// WIRE_TYPE_OBJECT
struct wire_object {
	struct wire_head head;
	/// What records call it.
	__u64 id;
	/// Inode number.
	__u64 inode;
	/// Device number of its file system (major << 20 | minor); of a device file, the device's own.
	__u32 device;
	/// An ObjectKind.
	__u8 kind;
	/// Address family of a socket.
	__u8 family;
	/// Local port.
	__u16 local_port;
	/// Remote port.
	__u16 peer_port;
	/// Bytes of `path` that are used: components from the innermost to the outermost, each ended by 0 (see the flags).
	__u16 path_length;
	/// Process at the other end, if it is on this host and known; else 0.
	__u32 peer_pid;
	/// Local address: 4 or 16 bytes.
	__u8 local[16];
	/// Remote address.
	__u8 peer[16];
	/// Path components, innermost first.
	__u8 path[WIRE_MAX_PATH];
};

/// WIRE_TYPE_LOSS
struct wire_loss {
	struct wire_head head;
	/// Begin of the first lost record.
	__u64 start_ns;
	/// Until the end of the last.
	__u64 duration_ns;
	/// How many.
	__u64 records;
};

/// WIRE_TYPE_BLOCK_IO
struct wire_block_io {
	struct wire_head head;
	/// When it was queued.
	__u64 start_ns;
	/// Until the device was given it.
	__u64 queued_ns;
	/// From being queued to completion.
	__u64 duration_ns;
	/// First sector.
	__u64 sector;
	/// File that it reads or writes (WIRE_TYPE_OBJECT id), 0 where unknown.
	__u64 object;
	/// Bytes.
	__u32 bytes;
	/// Device number of the whole disk (major << 20 | minor).
	__u32 device;
	/// Error number.
	__s32 error;
	/// A BlockOp.
	__u32 operation;
};

/// WIRE_TYPE_CALL: bit n of its flags says that value n could be read.
struct wire_call {
	struct wire_head head;
	/// Entry.
	__u64 start_ns;
	/// Until the return, or until the last that was seen of the call.
	__u64 duration_ns;
	/// What the function's row of the table asks for, in its order.
	__u64 values[WIRE_CALL_VALUES];
	/// Return value, where a flag says so.
	__s64 result;
	/// User stack of the caller.
	__u64 stack;
	/// Position among the process's collective calls on the communicator, from 1 on; 0 where it is not counted.
	__u64 sequence;
	/// Row of the table of functions, and library (bits 16 to 23) where the file that holds it says which.
	__u32 function;
	/// Bits of record::call_flags and of wire_call_flag.
	__u32 call_flags;
};

/// WIRE_TYPE_FILE_IO: what one thread did with one object since that was last told. It may come after the thread's end.
struct wire_file_io {
	struct wire_head head;
	/// When it was asked.
	__u64 time_ns;
	/// WIRE_TYPE_OBJECT id; 0 for what happened to objects that there was no room to tell apart.
	__u64 object;
	/// Calls that read.
	__u64 reads;
	/// Bytes that they returned.
	__u64 read_bytes;
	/// Calls that wrote.
	__u64 writes;
	/// Bytes that they took.
	__u64 written_bytes;
};

/// WIRE_TYPE_CONNECTION: totals since the connection was opened.
struct wire_connection {
	struct wire_head head;
	/// When it was asked.
	__u64 time_ns;
	/// WIRE_TYPE_OBJECT id.
	__u64 object;
	/// Bytes sent, repeated ones not counted again.
	__u64 sent;
	/// Bytes received; the kernel counts the end of the stream as one.
	__u64 received;
	/// Smoothed round-trip time.
	__u64 rtt_ns;
	/// Segments sent again.
	__u32 retransmits;
	/// Segments sent.
	__u32 segments;
	/// What the kernel estimates the connection to deliver, bytes a second; 0 where it does not say.
	__u64 delivery_rate;
};

/// WIRE_TYPE_FAULTS
struct wire_faults {
	struct wire_head head;
	/// Begin of the stretch.
	__u64 start_ns;
	/// Its length.
	__u64 duration_ns;
	/// Faults that needed no I/O.
	__u64 minor;
	/// Faults that did.
	__u64 major;
};

/// WIRE_TYPE_LAUNCH
struct wire_launch {
	struct wire_head head;
	/// When.
	__u64 time_ns;
	/// User stack of the thread that launches.
	__u64 stack;
	/// CUPTI's correlation id of the launch.
	__u32 correlation;
	/// CUPTI's number of the call.
	__u32 call;
};

#endif
