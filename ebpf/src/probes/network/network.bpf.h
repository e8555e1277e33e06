// TCP: what each connection that followed threads use has done since the first of them used it, told when the recorder
// asks (report_connections) and when it closes.
//
// The sockets are those that a descriptor of a followed thread led to (object.bpf.h puts them into the map), so that the
// network namespace does not matter. A connection that nobody waited on or read from is not seen.

SEC("iter/bpf_map_elem")
int report_connections(struct bpf_iter__bpf_map_elem *ctx)
{
	u64 *key = ctx->key, sock, received, segments;
	struct connection *c;
	if (!key)
		return 0;
	sock = *key;
	c = bpf_map_lookup_elem(&connections, &sock);
	if (!c)
		return 0;
	// Closed, and its memory used for another, in the moment between the two looks.
	if (READ(sock, sock, __sk_common.skc_portpair) != c->ports) {
		bpf_map_delete_elem(&connections, &sock);
		return 0;
	}
	received = READ(tcp_sock, sock, bytes_received);
	segments = READ(tcp_sock, sock, segs_out);
	if (received == c->received && segments == c->segments)
		return 0;
	if (tell_connection(sock, c)) {
		c->received = received;
		c->segments = segments;
	}
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sock, int old, int state)
{
	u64 key = (u64)sock;
	struct connection *c;
	if (!recording || state != TCP_CLOSE)
		return 0;
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c)
		return 0;
	tell_connection(key, c);
	bpf_map_delete_elem(&connections, &key);
	return 0;
}
