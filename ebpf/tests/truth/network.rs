//! TCP between two network namespaces, with and without loss: the probe's totals are those of the kernel.

use std::process::{Child, Command};

use stallscope_ebpf::Event;
use stallscope_schemas::record::ObjectKind;
use stallscope_schemas::wire::Connection;

use crate::recording::{Recording, child, record_pids, start};

const SENT: u64 = 8 << 20;

/// Two namespaces with a pair of interfaces between them.
struct Pair {
    names: [String; 2],
}

fn ran(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).output().is_ok_and(|output| output.status.success())
}

impl Pair {
    fn new(tag: &str) -> Option<Self> {
        let id = std::process::id();
        let names = [format!("truth-{tag}-a-{id}"), format!("truth-{tag}-b-{id}")];
        let pair = Self { names };
        let [a, b] = &pair.names;
        let made = ran(&format!(
            "set -e
            ip netns add {a}; ip netns add {b}
            ip link add v0 netns {a} type veth peer name v0 netns {b}
            ip -n {a} addr add 10.97.0.1/24 dev v0; ip -n {b} addr add 10.97.0.2/24 dev v0
            ip -n {a} link set v0 up; ip -n {b} link set v0 up; ip -n {a} link set lo up; ip -n {b} link set lo up"
        ));
        made.then_some(pair)
    }

    /// Loses one packet in fifty on its way to the second namespace.
    fn lose(&self) -> bool {
        let rules = "add table ip t\nadd chain ip t in { type filter hook input priority 0; }\n\
                     add rule ip t in tcp dport 4242 numgen random mod 100 < 2 drop\n";
        ran(&format!("printf '{rules}' | ip netns exec {} nft -f -", self.names[1]))
    }

    fn inside(&self, at: usize, arguments: &[&str]) -> Option<Child> {
        let program = child(arguments)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[at]]).arg(program.get_program()).args(program.get_args());
        Some(start(&mut command))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in &self.names {
            ran(&format!("ip netns del {name}"));
        }
    }
}

fn last(recording: &Recording, pid: u32, text: &str) -> Connection {
    let task = recording.task(u64::from(pid));
    let all = recording.events.iter().filter_map(|event| match event {
        Event::Connection(c) if c.head.task == task => Some(*c),
        _ => None,
    });
    let named = all.filter(|c| {
        let object = recording.object(c.object);
        assert_eq!(object.kind, ObjectKind::TcpSocket);
        object.text.contains(text)
    });
    let named: Vec<_> = named.collect();
    for pair in named.windows(2) {
        assert!(
            pair[0].sent <= pair[1].sent && pair[0].retransmits <= pair[1].retransmits,
            "totals only grow"
        );
    }
    *named.last().unwrap_or_else(|| panic!("no connection {text} of {pid}"))
}

/// Sends through the pair, and compares what both ends are said to have done.
fn check(pair: &Pair) -> Option<Connection> {
    let mut server = pair.inside(1, &["server", "4242"])?;
    let client = pair.inside(0, &["client", "10.97.0.2", "4242", &SENT.to_string()])?;
    let (server_pid, client_pid) = (server.id(), client.id());
    let mut input = server.stdin.take().expect("piped");
    std::io::Write::write_all(&mut input, b"go\n").expect("the server listens");
    let recording = record_pids(client, &[server_pid, client_pid], |_| {});
    server.wait().expect("a child of ours");
    let kernel = &recording.said("tcp")[0];
    let sent = last(&recording, client_pid, "→ 10.97.0.2:4242");
    println!("kernel {kernel:?}, ours {sent:?}");
    assert_eq!((sent.sent, sent.received, u64::from(sent.retransmits)), (kernel[0], kernel[1], kernel[2]));
    assert_eq!(sent.delivery_rate, kernel[4]);
    // The kernel counts the end of the stream as a byte received.
    assert_eq!((sent.sent, sent.received), (SENT, 5 + 1));
    assert!(sent.rtt_ns > 0 && u64::from(sent.segments) > SENT / 65536);
    let taken = last(&recording, server_pid, "10.97.0.2:4242 → 10.97.0.1:");
    assert_eq!((taken.sent, taken.received), (5, SENT + 1));
    Some(sent)
}

#[test]
fn a_connection_in_another_namespace_is_told_to_the_byte() {
    let Some(pair) = Pair::new("plain") else {
        println!("skipped: no network namespaces with a veth pair can be made");
        return;
    };
    check(&pair);
}

#[test]
fn lost_segments_are_sent_again_as_often_as_the_kernel_says() {
    let Some(pair) = Pair::new("loss") else {
        println!("skipped: no network namespaces with a veth pair can be made");
        return;
    };
    if !pair.lose() {
        println!("skipped: no nft to lose packets with");
        return;
    }
    if let Some(sent) = check(&pair) {
        assert!(sent.retransmits > 0, "something was lost");
    }
}
