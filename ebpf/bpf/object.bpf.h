// What a call's descriptor, address or path stands for: an id that records carry, and once, a record that names it.
//
// What always holds:
// - The id is the object's identity and not the descriptor's: of a file its inode, of a connection its socket with both
//   addresses. Two descriptors of one file have one id.
// - An id is only handed out when the record that names it was sent; else it is 0 and the loss is counted.
// - A thread remembers four descriptors: seeing the same open file again costs a few reads.
#ifndef STALLSCOPE_OBJECT_H
#define STALLSCOPE_OBJECT_H

#include "calls.bpf.h"
#include "connection.bpf.h"
#include "path.bpf.h"

// The numbers of record::ObjectKind.
enum object_kind {
	OBJECT_NONE = 0,
	OBJECT_FILE = 1,
	OBJECT_DIRECTORY = 2,
	OBJECT_BLOCK_DEVICE = 3,
	OBJECT_CHAR_DEVICE = 4,
	OBJECT_PIPE = 5,
	OBJECT_UNIX_SOCKET = 6,
	OBJECT_TCP_SOCKET = 7,
	OBJECT_UDP_SOCKET = 8,
	OBJECT_OTHER_SOCKET = 9,
	OBJECT_EVENTFD = 10,
	OBJECT_EPOLL = 11,
	OBJECT_TIMER = 12,
	OBJECT_IO_URING = 13,
	OBJECT_ANONYMOUS = 14,
	OBJECT_FUTEX = 15,
};

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFBLK 0060000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define ANON_INODE_FS_MAGIC 0x09041934
#define PIPEFS_MAGIC 0x50495045
#define PIDFS_MAGIC 0x50494446
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define TCP_LISTEN 10
#define TCP_CLOSE 7
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262

// One for programs that interrupt nothing of their kind, one for iterators, which may themselves be interrupted.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct object_scratch);
} object_scratch SEC(".maps");

// Ids whose names have been sent.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, u64);
	__type(value, u32);
} objects_sent SEC(".maps");

// Calls and bytes by thread and object, as far as they are not in the threads' own slots.
struct file_key {
	u64 object;
	u32 task;
	u32 reserved;
};

struct file_sums {
	u64 reads;
	u64 read_bytes;
	u64 writes;
	u64 written_bytes;
	// How often it was asked for and had nothing to tell.
	u64 idle;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct file_key);
	__type(value, struct file_sums);
} file_io SEC(".maps");

static __always_inline u64 never_zero(u64 hash)
{
	return hash ? hash : 1;
}

static __always_inline struct object_scratch *object_begin(struct task_struct *task, u32 slot)
{
	struct object_scratch *s = bpf_map_lookup_elem(&object_scratch, &slot);
	if (!s)
		return 0;
	__builtin_memset(&s->record, 0, sizeof(s->record));
	s->record.head.kind = WIRE_TYPE_OBJECT;
	s->root_mnt = (u64)task->fs->root.mnt;
	s->root_dentry = (u64)task->fs->root.dentry;
	s->mnt_ns = (u64)task->nsproxy->mnt_ns;
	s->pid = task->tgid;
	return s;
}

static __always_inline u64 hash_bytes(u64 hash, const u8 *bytes)
{
	u64 word;
	__builtin_memcpy(&word, bytes, sizeof(word));
	return mix(hash, word);
}

// What an inode is by its mode, unless it is a socket or anonymous.
static __always_inline u8 kind_of_mode(u16 mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return OBJECT_DIRECTORY;
	case S_IFBLK:
		return OBJECT_BLOCK_DEVICE;
	case S_IFCHR:
		return OBJECT_CHAR_DEVICE;
	case S_IFIFO:
		return OBJECT_PIPE;
	case S_IFREG:
		return OBJECT_FILE;
	}
	return OBJECT_ANONYMOUS;
}

// The identity of an inode, written to the record with its kind.
static __always_inline u64 identify_inode(struct object_scratch *s, u64 inode)
{
	u64 super = FOLLOW(inode, inode, i_sb);
	u32 device = READ(super_block, super, s_dev);
	u64 hash;
	s->record.kind = kind_of_mode(READ(inode, inode, i_mode));
	s->record.inode = READ(inode, inode, i_ino);
	hash = mix(mix(mix(1, device), s->record.inode), READ(inode, inode, i_generation));
	s->record.device = s->record.kind == OBJECT_BLOCK_DEVICE || s->record.kind == OBJECT_CHAR_DEVICE ?
				   READ(inode, inode, i_rdev) :
				   device;
	return never_zero(hash);
}

static __always_inline bool object_known(u64 id)
{
	return bpf_map_lookup_elem(&objects_sent, &id) != 0;
}

// Sends the record. Returns its id, or 0 where there was no room.
static __always_inline u64 object_send(struct object_scratch *s, u64 id)
{
	u32 one = 1;
	s->record.id = id;
	if (!send(&s->record, sizeof(s->record))) {
		count(COUNT_OBJECT_LOST);
		return 0;
	}
	bpf_map_update_elem(&objects_sent, &id, &one, BPF_ANY);
	return id;
}

static __always_inline u64 name_anonymous(struct object_scratch *s, u64 file)
{
	u64 id;
	s->record.kind = OBJECT_ANONYMOUS;
	add_name(s, FOLLOW(file, file, f_path.dentry));
	id = hash_bytes(mix(2, file), s->record.path);
	if (!__builtin_memcmp(s->record.path, "[eventfd", 8))
		s->record.kind = OBJECT_EVENTFD;
	else if (!__builtin_memcmp(s->record.path, "[eventpo", 8))
		s->record.kind = OBJECT_EPOLL;
	else if (!__builtin_memcmp(s->record.path, "[timerfd", 8))
		s->record.kind = OBJECT_TIMER;
	else if (!__builtin_memcmp(s->record.path, "[io_urin", 8))
		s->record.kind = OBJECT_IO_URING;
	id = never_zero(id);
	return object_known(id) ? id : object_send(s, id);
}

static __always_inline void name_unix(struct object_scratch *s, u64 sock)
{
	u64 address = FOLLOW(unix_sock, sock, addr);
	u64 peer = FOLLOW(unix_sock, sock, peer);
	u64 pid = FOLLOW(sock, sock, sk_peer_pid);
	int length;
	if (pid) {
		s->record.peer_pid = READ(pid, pid, numbers[0].nr);
		// Pairs made by one process name their maker on both ends, which says nothing.
		if (s->record.peer_pid == s->pid)
			s->record.peer_pid = 0;
	}
	if (!address && peer) {
		address = FOLLOW(unix_sock, peer, addr);
		s->record.head.flags |= WIRE_OBJECT_PEER_NAME;
	}
	if (!address)
		return;
	length = READ(unix_address, address, len) - 2; // less the family
	if (length <= 0)
		return;
	if (length > 108)
		length = 108;
	address += bpf_core_field_offset(struct unix_address, name) + bpf_core_field_offset(struct sockaddr_un, sun_path);
	bpf_probe_read_kernel(s->record.path, length & 127, (void *)address);
	s->record.path_length = length;
	s->record.head.flags |= WIRE_OBJECT_WHOLE;
}

static __always_inline u64 swap_port(u16 port)
{
	return __builtin_bswap16(port);
}

// The addresses of a socket, and its identity by them: a socket is another object once it is connected.
static __always_inline u64 name_inet(struct object_scratch *s, u64 sock)
{
	u64 hash;
	u16 local = READ(inet_sock, sock, inet_sport), peer = READ(sock, sock, __sk_common.skc_dport);
	s->record.local_port = swap_port(local);
	s->record.peer_port = swap_port(peer);
	if (s->record.family == AF_INET) {
		u32 from = READ(sock, sock, __sk_common.skc_rcv_saddr), to = READ(sock, sock, __sk_common.skc_daddr);
		__builtin_memcpy(s->record.local, &from, sizeof(from));
		__builtin_memcpy(s->record.peer, &to, sizeof(to));
		hash = mix(mix(3, from), to);
	} else {
		struct in6_addr from = READ(sock, sock, __sk_common.skc_v6_rcv_saddr);
		struct in6_addr to = READ(sock, sock, __sk_common.skc_v6_daddr);
		__builtin_memcpy(s->record.local, &from, sizeof(s->record.local));
		__builtin_memcpy(s->record.peer, &to, sizeof(s->record.peer));
		hash = hash_bytes(hash_bytes(4, s->record.local), s->record.local + 8);
		hash = hash_bytes(hash_bytes(hash, s->record.peer), s->record.peer + 8);
	}
	if (READ(sock, sock, __sk_common.skc_state) == TCP_LISTEN)
		s->record.head.flags |= WIRE_OBJECT_LISTENING;
	return mix(mix(hash, (u32)local << 16 | peer), sock);
}

static __always_inline u64 sock_of(u64 file)
{
	u64 socket = FOLLOW(file, file, private_data);
	return FOLLOW(socket, socket, sk);
}

static __always_inline u64 name_socket(struct object_scratch *s, u64 file, u64 inode, u32 task)
{
	u64 sock = sock_of(file), id;
	u16 protocol = READ(sock, sock, sk_protocol);
	if (!sock)
		return 0;
	s->record.family = READ(sock, sock, __sk_common.skc_family);
	s->record.inode = READ(inode, inode, i_ino);
	s->record.kind = OBJECT_OTHER_SOCKET;
	id = mix(mix(5, s->record.inode), sock);
	if (s->record.family == AF_INET || s->record.family == AF_INET6) {
		if (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
			s->record.kind = OBJECT_TCP_SOCKET;
		else if (protocol == IPPROTO_UDP)
			s->record.kind = OBJECT_UDP_SOCKET;
		id = name_inet(s, sock);
	} else if (s->record.family == AF_UNIX) {
		s->record.kind = OBJECT_UNIX_SOCKET;
		name_unix(s, sock);
		id = mix(id, s->record.path_length);
	}
	id = never_zero(id);
	if (!object_known(id) && !object_send(s, id))
		return 0;
	if (want_network && protocol == IPPROTO_TCP && s->record.kind == OBJECT_TCP_SOCKET && s->record.peer_port) {
		struct connection c = { .object = id, .task = task };
		c.ports = READ(sock, sock, __sk_common.skc_portpair);
		remember_connection(sock, &c);
	}
	return id;
}

// The id of what an open file is; its kind is left in the scratch.
__noinline u64 name_file(struct object_scratch *s, u64 file, u64 inode, u32 task)
{
	u64 super, magic, id, dentry;
	u16 mode;
	if (!s)
		return 0;
	super = FOLLOW(inode, inode, i_sb);
	magic = READ(super_block, super, s_magic);
	mode = READ(inode, inode, i_mode);
	if (magic == ANON_INODE_FS_MAGIC || magic == PIDFS_MAGIC)
		return name_anonymous(s, file);
	if ((mode & S_IFMT) == S_IFSOCK)
		return name_socket(s, file, inode, task);
	id = identify_inode(s, inode);
	if (object_known(id))
		return id;
	if (magic != PIPEFS_MAGIC) {
		dentry = FOLLOW(file, file, f_path.dentry);
		walk_path(s, dentry, FOLLOW(file, file, f_path.mnt));
		s->record.head.flags &= ~WIRE_OBJECT_UNMOUNTED;
		if (!READ(dentry, dentry, d_hash.pprev) && FOLLOW(dentry, dentry, d_parent) != 0 &&
		    dentry != FOLLOW(super_block, super, s_root))
			s->record.head.flags |= WIRE_OBJECT_DELETED;
	}
	return object_send(s, id);
}

// The id of a regular file of which only the inode is at hand: named by one of its directory entries.
__noinline u64 name_inode(struct object_scratch *s, u64 inode)
{
	u64 id, alias;
	if (!s || !inode)
		return 0;
	id = identify_inode(s, inode);
	if (s->record.kind != OBJECT_FILE)
		return 0;
	if (object_known(id))
		return id;
	alias = FOLLOW(inode, inode, i_dentry.first);
	if (!alias)
		return 0;
	walk_path(s, alias - bpf_core_field_offset(struct dentry, d_u.d_alias),
		  find_mount(s, FOLLOW(inode, inode, i_sb)));
	return object_send(s, id);
}

// The open file behind a descriptor, or 0.
static __always_inline u64 open_file(struct task_struct *task, u32 fd)
{
	struct fdtable *table = task->files->fdt;
	struct file **files = table->fd;
	u64 file = 0;
	if (fd >= table->max_fds)
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

static __noinline struct file_sums *sums_of(struct file_key *key)
{
	struct file_sums none = {}, *sums;
	sums = bpf_map_lookup_elem(&file_io, key);
	if (sums)
		return sums;
	// Full until the recorder asks: what has no room is lost.
	if (bpf_map_update_elem(&file_io, key, &none, BPF_NOEXIST))
		count(COUNT_OBJECT_LOST);
	return bpf_map_lookup_elem(&file_io, key);
}

// Adds what a slot has to the sums. The thread itself may be using it on another CPU: what it has meanwhile come to stand
// for is then not known.
static __noinline void empty_slot(struct task_state *state, struct fd_slot *slot)
{
	struct file_key key = { .task = state->id, .object = slot->object };
	u64 reads = __sync_lock_test_and_set(&slot->reads, 0);
	u64 read_bytes = __sync_lock_test_and_set(&slot->read_bytes, 0);
	u64 writes = __sync_lock_test_and_set(&slot->writes, 0);
	u64 written_bytes = __sync_lock_test_and_set(&slot->written_bytes, 0);
	struct file_sums *sums;
	if (!reads && !writes)
		return;
	if (slot->object != key.object)
		key.object = 0;
	sums = sums_of(&key);
	if (!sums)
		return;
	__sync_fetch_and_add(&sums->reads, reads);
	__sync_fetch_and_add(&sums->read_bytes, read_bytes);
	__sync_fetch_and_add(&sums->writes, writes);
	__sync_fetch_and_add(&sums->written_bytes, written_bytes);
}

static __noinline void empty_slots(struct task_state *state)
{
	for (u32 i = 0; i < FD_SLOTS; i++)
		empty_slot(state, &state->fds[i]);
}

// From 6.2 on, memory can be read as a type without a call.
extern void *bpf_rdonly_cast(const void *memory, u32 type) __ksym __weak;

// The inode of an open file, and its number.
static __always_inline u64 inode_of_file(u64 file, u64 *number)
{
	u64 inode;
	if (bpf_ksym_exists(bpf_rdonly_cast)) {
		struct file *f = bpf_rdonly_cast((void *)file, bpf_core_type_id_kernel(struct file));
		struct inode *i = f->f_inode;
		*number = i->i_ino;
		return (u64)i;
	}
	inode = FOLLOW(file, file, f_inode);
	*number = READ(inode, inode, i_ino);
	return inode;
}

static __always_inline u32 ports_of(u64 sock)
{
	if (bpf_ksym_exists(bpf_rdonly_cast)) {
		struct sock *s = bpf_rdonly_cast((void *)sock, bpf_core_type_id_kernel(struct sock));
		return s->__sk_common.skc_portpair;
	}
	return READ(sock, sock, __sk_common.skc_portpair);
}

// What the thread's descriptor stands for, or 0. A descriptor that is used again is known by its file, inode and, as a
// socket may have been connected since, ports.
static __always_inline struct fd_slot *slot_of(struct task_struct *task, struct task_state *state, u32 fd)
{
	struct fd_slot *slot = &state->fds[fd % FD_SLOTS];
	struct object_scratch *s;
	u64 file = open_file(task, fd), inode, number, sock;
	u32 ports = 0, foreign;
	if (!file)
		return 0;
	if (slot->file == file && slot->inode == inode_of_file(file, &number) && slot->number == number) {
		sock = slot->socket;
		ports = sock ? ports_of(sock) : 0;
		if (slot->ports == ports)
			return slot;
	}
	foreign = (u32)bpf_get_current_pid_tgid() != state->tid;
	s = object_begin(task, foreign);
	if (!s)
		return 0;
	inode = FOLLOW(file, file, f_inode);
	number = READ(inode, inode, i_ino);
	if (want_files)
		empty_slot(state, slot);
	slot->file = 0;
	slot->object = name_file(s, file, inode, state->id);
	if (!slot->object)
		return 0;
	slot->kind = s->record.kind;
	slot->inode = inode;
	slot->number = number;
	slot->socket = 0;
	slot->ports = 0;
	if (slot->kind == OBJECT_TCP_SOCKET || slot->kind == OBJECT_UDP_SOCKET) {
		sock = sock_of(file);
		slot->socket = sock;
		slot->ports = ports_of(sock);
	}
	slot->file = file;
	return slot;
}

// The path that a call was given, as it was given. Returns 0 where it is empty or cannot be read.
__noinline u64 name_given_path(struct object_scratch *s, u64 address)
{
	u64 hash = 6;
	long length;
	if (!s)
		return 0;
	length = bpf_probe_read_user_str(s->record.path, sizeof(s->record.path), (void *)address);
	if (length <= 1)
		return 0;
	s->record.path_length = length;
	s->record.kind = OBJECT_FILE;
	s->record.head.flags |= WIRE_OBJECT_WHOLE;
	for (u32 i = 0; i < WIRE_MAX_PATH / sizeof(u64); i++)
		hash = hash_bytes(hash, &s->record.path[i * sizeof(u64)]);
	hash = never_zero(hash);
	return object_known(hash) ? hash : object_send(s, hash);
}

// A descriptor that was looked at so lately is taken to stand for the same, unless the wait turns out to matter.
#define TRUST_NS 10000000

// Fills in what the call that the thread waits in is about: object, its kind, the descriptor (-1 where there is none).
static __noinline void resolve_object(struct task_struct *task, struct task_state *state, u64 now)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	struct object_scratch *s;
	struct fd_slot *slot;
	u64 first = regs->di, second = regs->si, futex;
	u32 class = class_of_call(state->call), fd = first, polled;
	// User memory can be read of the current process only.
	bool own = (u32)bpf_get_current_pid_tgid() == state->tid;

	if (!state)
		return;
	state->object = 0;
	state->object_kind = OBJECT_NONE;
	state->on_trust = false;
	state->compat = is_compat(task);
	if (state->compat || class == CALL_OTHER) {
		state->fd = -1;
		return;
	}
	if (class == CALL_FUTEX || class == CALL_FUTEXES) {
		state->fd = -1;
		futex = first;
		if (class == CALL_FUTEXES && (!own || bpf_probe_read_user(&futex, sizeof(futex), (void *)first + 8)))
			return;
		state->object = futex;
		state->object_kind = OBJECT_FUTEX;
		return;
	}
	if (class == CALL_PATH || class == CALL_PATH_AT) {
		state->fd = -1;
		s = own ? object_begin(task, 0) : 0;
		if (s)
			state->object = name_given_path(s, class == CALL_PATH ? first : second);
		if (state->object)
			state->object_kind = OBJECT_FILE;
		if (state->object || class == CALL_PATH)
			return;
	}
	if (class == CALL_POLL) {
		// Of several, the first.
		polled = -1;
		if (own && second)
			bpf_probe_read_user(&polled, sizeof(polled), (void *)first);
		fd = polled;
	}
	if (class == CALL_SENDFILE)
		fd = second;
	state->fd = fd;
	slot = slot_of(task, state, fd);
	if (slot) {
		state->object = slot->object;
		state->object_kind = slot->kind;
		state->trusted_call = state->call;
		state->trusted_fd = fd;
		state->trusted_object = slot->object;
		state->trusted_kind = slot->kind;
		state->trusted_until = now + TRUST_NS;
	}
}

#endif
