// What the arguments of a system call name: which of them is a descriptor, a path, an address. x86-64's numbers.
#ifndef STALLSCOPE_CALLS_H
#define STALLSCOPE_CALLS_H

enum call_class {
	CALL_OTHER,
	CALL_FD,       // first argument is a descriptor
	CALL_READ,     // likewise, and the result is the bytes read
	CALL_WRITE,    // likewise, written
	CALL_SPLICE,   // reads from the first argument, writes to the third
	CALL_SENDFILE, // reads from the second argument, writes to the first
	CALL_POLL,     // first argument is an array of struct pollfd
	CALL_FUTEX,    // first argument is a futex
	CALL_FUTEXES,  // first argument is an array of struct futex_waitv
	CALL_PATH,     // first argument is a path
	CALL_PATH_AT,  // second argument is a path, or empty for the first as a descriptor
};

#define CALLS 512

// clang-format off
static const u8 call_classes[CALLS] = {
	[0] = CALL_READ,      // read
	[1] = CALL_WRITE,     // write
	[2] = CALL_PATH,      // open
	[3] = CALL_FD,        // close
	[4] = CALL_PATH,      // stat
	[5] = CALL_FD,        // fstat
	[6] = CALL_PATH,      // lstat
	[7] = CALL_POLL,      // poll
	[8] = CALL_FD,        // lseek
	[16] = CALL_FD,       // ioctl
	[17] = CALL_READ,     // pread64
	[18] = CALL_WRITE,    // pwrite64
	[19] = CALL_READ,     // readv
	[20] = CALL_WRITE,    // writev
	[21] = CALL_PATH,     // access
	[40] = CALL_SENDFILE, // sendfile
	[42] = CALL_FD,       // connect
	[43] = CALL_FD,       // accept
	[44] = CALL_WRITE,    // sendto
	[45] = CALL_READ,     // recvfrom
	[46] = CALL_WRITE,    // sendmsg
	[47] = CALL_READ,     // recvmsg
	[48] = CALL_FD,       // shutdown
	[54] = CALL_FD,       // setsockopt
	[55] = CALL_FD,       // getsockopt
	[59] = CALL_PATH,     // execve
	[72] = CALL_FD,       // fcntl
	[73] = CALL_FD,       // flock
	[74] = CALL_FD,       // fsync
	[75] = CALL_FD,       // fdatasync
	[76] = CALL_PATH,     // truncate
	[77] = CALL_FD,       // ftruncate
	[78] = CALL_FD,       // getdents
	[80] = CALL_PATH,     // chdir
	[81] = CALL_FD,       // fchdir
	[82] = CALL_PATH,     // rename
	[83] = CALL_PATH,     // mkdir
	[84] = CALL_PATH,     // rmdir
	[85] = CALL_PATH,     // creat
	[86] = CALL_PATH,     // link
	[87] = CALL_PATH,     // unlink
	[89] = CALL_PATH,     // readlink
	[90] = CALL_PATH,     // chmod
	[91] = CALL_FD,       // fchmod
	[92] = CALL_PATH,     // chown
	[93] = CALL_FD,       // fchown
	[94] = CALL_PATH,     // lchown
	[137] = CALL_PATH,    // statfs
	[138] = CALL_FD,      // fstatfs
	[187] = CALL_FD,      // readahead
	[191] = CALL_PATH,    // getxattr
	[192] = CALL_PATH,    // lgetxattr
	[193] = CALL_FD,      // fgetxattr
	[202] = CALL_FUTEX,   // futex
	[217] = CALL_FD,      // getdents64
	[221] = CALL_FD,      // fadvise64
	[232] = CALL_FD,      // epoll_wait
	[233] = CALL_FD,      // epoll_ctl
	[257] = CALL_PATH_AT, // openat
	[258] = CALL_PATH_AT, // mkdirat
	[260] = CALL_PATH_AT, // fchownat
	[262] = CALL_PATH_AT, // newfstatat
	[263] = CALL_PATH_AT, // unlinkat
	[264] = CALL_PATH_AT, // renameat
	[265] = CALL_PATH_AT, // linkat
	[267] = CALL_PATH_AT, // readlinkat
	[268] = CALL_PATH_AT, // fchmodat
	[269] = CALL_PATH_AT, // faccessat
	[271] = CALL_POLL,    // ppoll
	[275] = CALL_SPLICE,  // splice
	[276] = CALL_FD,      // tee
	[277] = CALL_FD,      // sync_file_range
	[278] = CALL_FD,      // vmsplice
	[281] = CALL_FD,      // epoll_pwait
	[285] = CALL_FD,      // fallocate
	[288] = CALL_FD,      // accept4
	[295] = CALL_READ,    // preadv
	[296] = CALL_WRITE,   // pwritev
	[299] = CALL_FD,      // recvmmsg
	[306] = CALL_FD,      // syncfs
	[307] = CALL_FD,      // sendmmsg
	[316] = CALL_PATH_AT, // renameat2
	[322] = CALL_PATH_AT, // execveat
	[326] = CALL_SPLICE,  // copy_file_range
	[327] = CALL_READ,    // preadv2
	[328] = CALL_WRITE,   // pwritev2
	[332] = CALL_PATH_AT, // statx
	[426] = CALL_FD,      // io_uring_enter
	[427] = CALL_FD,      // io_uring_register
	[437] = CALL_PATH_AT, // openat2
	[439] = CALL_PATH_AT, // faccessat2
	[441] = CALL_FD,      // epoll_pwait2
	[449] = CALL_FUTEXES, // futex_waitv
	[455] = CALL_FUTEX,   // futex_wait
};
// clang-format on

// Within a call through the 32-bit table, whose numbers are others.
static __always_inline bool is_compat(struct task_struct *task)
{
	return task->thread_info.status & 2;
}

static __always_inline u32 class_of_call(u64 number)
{
	return number < CALLS ? call_classes[number] : CALL_OTHER;
}

#endif
