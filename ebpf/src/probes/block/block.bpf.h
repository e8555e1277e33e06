// Block devices: requests that followed threads queued, from being queued to completion.
//
// A followed thread queues a bio; the block layer may split it, merge it with others and put it into a request, which is
// issued and completed in whatever context. So the bio is remembered by its address, the request by its own once a
// remembered bio is found in it, and one record is sent when the request is complete. Devices without requests (device
// mapper, RAID, zram) complete the bio itself. What kernel threads queue on behalf of others (writeback, journal commits,
// the thread of a loop device) belongs to nobody here.

// Bios of one request among which a remembered one is looked for.
#define BIOS 32
// The most segments of a request, and so bios, that drivers allow.
#define MOST_BIOS 256
#define REQ_OP_MASK 0xff
#define PAGE_MAPPING_FLAGS 3

struct block_io {
	u64 queued_at;
	u64 issued_at;
	u64 sector;
	u64 object;
	u32 task;
	u32 bytes;
	u32 left;
	u32 device;
	u32 operation;
	u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct block_io);
} bios SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct block_io);
} requests SEC(".maps");

// BlockOp
static __always_inline u32 operation_of(u32 flags)
{
	switch (flags & REQ_OP_MASK) {
	case 0:
		return 1; // read
	case 1:
		return 2; // write
	case 2:
		return 3; // flush
	case 3:
		return 4; // discard
	}
	return 0;
}

// What a request's status says as an error number: errno before 5.16, then a blk_status_t.
static __always_inline s32 errno_of(s32 status)
{
	if (status <= 0)
		return -status;
	switch (status) {
	case 1:
		return 95; // EOPNOTSUPP
	case 2:
		return 110; // ETIMEDOUT
	case 3:
		return 28; // ENOSPC
	case 4:
		return 67; // ENOLINK
	case 5:
		return 121; // EREMOTEIO
	case 7:
		return 61; // ENODATA: medium error
	case 8:
		return 84; // EILSEQ
	case 9:
		return 12; // ENOMEM
	}
	return 5; // EIO
}

// The inode whose pages the bio moves, or 0: pages of the process itself (direct I/O) have none.
static __always_inline u64 inode_of(struct bio *bio)
{
	u64 page = (u64)BPF_CORE_READ(bio, bi_io_vec, bv_page), head, mapping;
	if (!page)
		return 0;
	head = READ(page, page, compound_head);
	if (head & 1)
		page = head - 1;
	// Anonymous pages and kernel memory have marks or nothing here.
	mapping = bpf_core_field_exists(struct page, mapping) ? FOLLOW(page, page, mapping) :
								FOLLOW(folio, page, mapping);
	if (!mapping || mapping & PAGE_MAPPING_FLAGS)
		return 0;
	return FOLLOW(address_space, mapping, host);
}

// The file that a bio is for: the one whose pages it moves, or for direct I/O that of the call in progress.
static __always_inline u64 file_of_bio(struct task_struct *task, struct task_state *state, struct bio *bio)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	u64 inode = inode_of(bio);
	struct object_scratch *s;
	struct fd_slot *slot = 0;
	u32 class;
	if ((s64)regs->orig_ax >= 0 && !is_compat(task)) {
		class = class_of_call(regs->orig_ax);
		if (class >= CALL_FD && class <= CALL_SENDFILE)
			slot = slot_of(task, state, class == CALL_SENDFILE ? regs->si : regs->di);
		if (slot && slot->kind != OBJECT_FILE && slot->kind != OBJECT_BLOCK_DEVICE)
			slot = 0;
	}
	if (slot && (!inode || inode == slot->inode))
		return slot->object;
	if (!inode)
		return 0;
	s = object_begin(task, 0);
	return s ? name_inode(s, inode) : 0;
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(block_bio_queue, struct bio *bio)
{
	struct task_struct *task;
	struct task_state *state;
	struct block_io io = {};
	u64 key = (u64)bio;
	if (!recording)
		return 0;
	task = bpf_get_current_task_btf();
	state = state_of(task);
	if (!state || !on_own_stack(ctx, task, state)) {
		// A remembered bio at this address is gone.
		bpf_map_delete_elem(&bios, &key);
		return 0;
	}
	io.queued_at = bpf_ktime_get_ns();
	io.task = state->id;
	io.bytes = bio->bi_iter.bi_size;
	io.sector = bio->bi_iter.bi_sector + bio->bi_bdev->bd_start_sect;
	io.device = (u32)bio->bi_bdev->bd_disk->major << 20 | bio->bi_bdev->bd_disk->first_minor;
	io.operation = operation_of(bio->bi_opf);
	io.object = file_of_bio(task, state, bio);
	if (bpf_map_update_elem(&bios, &key, &io, BPF_ANY))
		count(COUNT_REQUEST_LOST);
	return 0;
}

// The part that is split off comes first and goes its own way; what is left keeps the bio.
SEC("tp_btf/block_split")
int BPF_PROG(block_split, struct bio *split)
{
	u64 key = (u64)split, parent = (u64)split->bi_private;
	struct block_io *io, copy;
	if (!recording)
		return 0;
	io = bpf_map_lookup_elem(&bios, &parent);
	if (!io)
		return 0;
	copy = *io;
	copy.bytes = split->bi_iter.bi_size;
	if (bpf_map_update_elem(&bios, &key, &copy, BPF_ANY))
		count(COUNT_REQUEST_LOST);
	// Only for bio devices: a request has its own place and length.
	io->bytes -= copy.bytes;
	io->sector += copy.bytes >> 9;
	return 0;
}

// The first remembered bio of a request.
static __noinline struct block_io *find_bio(u64 bio)
{
	struct block_io *io;
	for (u32 i = 0; i < BIOS && bio; i++) {
		io = bpf_map_lookup_elem(&bios, &bio);
		if (io)
			return io;
		bio = FOLLOW(bio, bio, bi_next);
	}
	return 0;
}

__noinline int forget_bios(u64 bio)
{
	for (u32 i = 0; i < MOST_BIOS && bio; i++) {
		bpf_map_delete_elem(&bios, &bio);
		bio = FOLLOW(bio, bio, bi_next);
	}
	return 0;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(block_rq_issue, struct request *request)
{
	struct block_io *io, copy;
	u64 key = (u64)request;
	if (!recording)
		return 0;
	io = find_bio(FOLLOW(request, request, bio));
	if (!io) {
		bpf_map_delete_elem(&requests, &key);
		return 0;
	}
	copy = *io;
	copy.issued_at = bpf_ktime_get_ns();
	copy.sector = request->__sector;
	copy.bytes = copy.left = request->__data_len;
	if (bpf_map_update_elem(&requests, &key, &copy, BPF_ANY))
		count(COUNT_REQUEST_LOST);
	return 0;
}

static __always_inline void tell_block_io(struct block_io *io, s32 error)
{
	struct wire_block_io record = {};
	u64 now = bpf_ktime_get_ns();
	record.head.kind = WIRE_TYPE_BLOCK_IO;
	record.head.task = io->task;
	record.start_ns = io->queued_at;
	record.queued_ns = io->issued_at ? io->issued_at - io->queued_at : 0;
	record.duration_ns = now - io->queued_at;
	record.sector = io->sector;
	record.object = io->object;
	record.bytes = io->bytes;
	record.device = io->device;
	record.error = error;
	record.operation = io->operation;
	send(&record, sizeof(record));
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(block_rq_complete, struct request *request, int error, u32 bytes)
{
	u64 key = (u64)request;
	struct block_io *io;
	if (!recording)
		return 0;
	io = bpf_map_lookup_elem(&requests, &key);
	// Flushes are complete without having been issued themselves.
	if (!io)
		io = find_bio(FOLLOW(request, request, bio));
	if (!io)
		return 0;
	if (bytes < io->left && !error) {
		io->left -= bytes;
		return 0;
	}
	tell_block_io(io, errno_of(error));
	bpf_map_delete_elem(&requests, &key);
	forget_bios(FOLLOW(request, request, bio));
	return 0;
}

// Devices without requests; for the others the block layer has taken the mark off that leads here.
SEC("tp_btf/block_bio_complete")
int BPF_PROG(block_bio_complete, struct request_queue *queue, struct bio *bio)
{
	u64 key = (u64)bio;
	struct block_io *io;
	if (!recording)
		return 0;
	io = bpf_map_lookup_elem(&bios, &key);
	if (!io)
		return 0;
	tell_block_io(io, errno_of(bio->bi_status));
	bpf_map_delete_elem(&bios, &key);
	return 0;
}
