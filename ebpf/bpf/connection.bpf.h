// TCP connections: the totals of each that a descriptor of a followed thread led to.
//
// What always holds: the first record of a connection is sent when it is first met and sets the mark; what later ones have
// more than it has happened since. What a connection did before a followed thread used it is not told.
#ifndef STALLSCOPE_CONNECTION_H
#define STALLSCOPE_CONNECTION_H

#include "path.bpf.h"

// TCP sockets that followed threads have used, by address.
struct connection {
	u64 object;
	u64 received;
	u64 segments;
	u32 task;
	u32 ports;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct connection);
} connections SEC(".maps");

// Bytes a second, as TCP_INFO works it out: of the last sample that the program did not cut short by sending nothing.
static __always_inline u64 delivery_rate(u64 sock)
{
	u64 segments = READ(tcp_sock, sock, rate_delivered);
	u64 interval_us = READ(tcp_sock, sock, rate_interval_us);

	return interval_us ? segments * READ(tcp_sock, sock, mss_cache) * 1000000 / interval_us : 0;
}

static __always_inline bool tell_connection(u64 sock, struct connection *c)
{
	struct wire_connection record = {};
	record.head.kind = WIRE_TYPE_CONNECTION;
	record.head.task = c->task;
	record.time_ns = bpf_ktime_get_ns();
	record.object = c->object;
	record.sent = READ(tcp_sock, sock, bytes_sent) - READ(tcp_sock, sock, bytes_retrans);
	record.received = READ(tcp_sock, sock, bytes_received);
	record.rtt_ns = (u64)(READ(tcp_sock, sock, srtt_us) >> 3) * 1000;
	record.retransmits = READ(tcp_sock, sock, total_retrans);
	record.segments = READ(tcp_sock, sock, segs_out);
	record.delivery_rate = delivery_rate(sock);
	return send(&record, sizeof(record));
}

static __always_inline void remember_connection(u64 sock, struct connection *c)
{
	long error = bpf_map_update_elem(&connections, &sock, c, BPF_NOEXIST);
	if (error == -7) // E2BIG
		count(COUNT_OBJECT_LOST);
	if (!error)
		tell_connection(sock, c);
}

#endif
