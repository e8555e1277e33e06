// Paths of files as their process sees them: names from the innermost outward, through the points where file systems are
// mounted, up to the process's own root.
#ifndef STALLSCOPE_PATH_H
#define STALLSCOPE_PATH_H

#include "state.bpf.h"

// A path has at most so many components and mount points: the verifier wants a bound, and deeper trees are not seen.
#define PATH_STEPS 32
// Longest name of a directory entry, with its end.
#define NAME_BYTES 256

struct object_scratch {
	struct wire_object record;
	// The last name may begin anywhere in the path and is then as long as a name can be.
	u8 slack[NAME_BYTES];
	// Where the process's own root is: paths end there.
	u64 root_mnt;
	u64 root_dentry;
	u64 mnt_ns;
	u32 pid;
};

// A field of what is at an address: the value, or where it points. Global functions take addresses, not pointers.
#define READ(type, address, field) BPF_CORE_READ((struct type *)(address), field)
#define FOLLOW(type, address, field) ((u64)BPF_CORE_READ((struct type *)(address), field))

// Adds one name to the path. Returns whether there is room for more.
static __always_inline bool add_name(struct object_scratch *s, u64 dentry)
{
	u32 at = s->record.path_length;
	long length;
	if (at >= WIRE_MAX_PATH) {
		s->record.head.flags |= WIRE_OBJECT_CUT;
		return false;
	}
	length = bpf_probe_read_kernel_str(&s->record.path[at], NAME_BYTES, READ(dentry, dentry, d_name.name));
	if (length <= 0)
		return false;
	at += length;
	if (at > WIRE_MAX_PATH) {
		s->record.head.flags |= WIRE_OBJECT_CUT;
		at = WIRE_MAX_PATH;
	}
	s->record.path_length = at;
	return at < WIRE_MAX_PATH;
}

// Writes the path from the entry outward, through the points where file systems are mounted. `mnt` may be 0.
__noinline int walk_path(struct object_scratch *s, u64 dentry, u64 mnt)
{
	u64 parent, mount;
	if (!s || !dentry)
		return 0;
	for (u32 i = 0; i < PATH_STEPS; i++) {
		if (mnt == s->root_mnt && dentry == s->root_dentry)
			return 0;
		if (mnt && dentry == FOLLOW(vfsmount, mnt, mnt_root)) {
			mount = mnt - bpf_core_field_offset(struct mount, mnt);
			parent = FOLLOW(mount, mount, mnt_parent);
			if (parent == mount)
				return 0;
			dentry = FOLLOW(mount, mount, mnt_mountpoint);
			mnt = parent + bpf_core_field_offset(struct mount, mnt);
			continue;
		}
		parent = FOLLOW(dentry, dentry, d_parent);
		if (parent == dentry) {
			// Files without a place in a tree have a name all the same.
			if (!i)
				add_name(s, dentry);
			else if (!mnt || mnt != s->root_mnt)
				s->record.head.flags |= WIRE_OBJECT_UNMOUNTED;
			return 0;
		}
		if (!add_name(s, dentry)) {
			s->record.head.flags |= WIRE_OBJECT_CUT;
			return 0;
		}
		dentry = parent;
	}
	s->record.head.flags |= WIRE_OBJECT_CUT;
	return 0;
}

// Takes a mount if it is in the process's namespace: best that of the file system's root.
static __always_inline u64 better_mount(struct object_scratch *s, u64 mount, u64 root, u64 found)
{
	if (FOLLOW(mount, mount, mnt_ns) != s->mnt_ns)
		return found;
	if (found && FOLLOW(mount, mount, mnt.mnt_root) != root)
		return found;
	return mount + bpf_core_field_offset(struct mount, mnt);
}

// Where a file system is mounted in the process's namespace, or 0.
__noinline u64 find_mount(struct object_scratch *s, u64 super)
{
	u64 root, found = 0;
	if (!s)
		return 0;
	root = FOLLOW(super_block, super, s_root);
	if (bpf_core_field_exists(struct mount___list, mnt_instance)) {
		u64 head = super + bpf_core_field_offset(struct super_block___list, s_mounts);
		u64 link = FOLLOW(list_head, head, next);
		for (u32 i = 0; i < PATH_STEPS && link && link != head; i++) {
			u64 mount = link - bpf_core_field_offset(struct mount___list, mnt_instance);
			found = better_mount(s, mount, root, found);
			link = FOLLOW(list_head, link, next);
		}
	} else {
		u64 mount = FOLLOW(super_block, super, s_mounts);
		for (u32 i = 0; i < PATH_STEPS && mount; i++) {
			found = better_mount(s, mount, root, found);
			mount = FOLLOW(mount, mount, mnt_next_for_sb);
		}
	}
	return found;
}

#endif
