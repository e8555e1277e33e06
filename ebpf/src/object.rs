//! What a wire object is called: the text that reports show for a file, a socket, a pipe or another object.
//!
//! Names come from the job: they are any bytes. What is not UTF-8 is replaced here; control characters are left to
//! whoever prints.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use stallscope_schemas::record::ObjectKind;
use stallscope_schemas::wire::{Object, object_flag};

/// An object in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectText {
    /// What it is.
    pub kind: ObjectKind,
    /// A path, a connection, or what else names it; empty where nothing does.
    pub text: String,
    /// Process at the other end, where it is on this host and known.
    pub peer_pid: Option<u32>,
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Names an object.
#[must_use]
pub fn describe(object: &Object) -> ObjectText {
    let kind = ObjectKind::from_id(u64::from(object.kind)).unwrap_or(ObjectKind::None);
    let inode = object.inode;
    let text = match kind {
        ObjectKind::None => String::new(),
        ObjectKind::File | ObjectKind::Directory => path(object),
        ObjectKind::BlockDevice | ObjectKind::CharDevice if object.path_length > 0 => path(object),
        ObjectKind::BlockDevice | ObjectKind::CharDevice => device(object.device),
        ObjectKind::Pipe if object.path_length > 0 => path(object),
        ObjectKind::Pipe => format!("pipe:[{inode}]"),
        ObjectKind::UnixSocket => unix(object),
        ObjectKind::TcpSocket => connection("tcp", object),
        ObjectKind::UdpSocket => connection("udp", object),
        ObjectKind::OtherSocket => format!("{}:[{inode}]", family(object.family)),
        ObjectKind::EventFd => "eventfd".to_owned(),
        ObjectKind::Epoll => "epoll".to_owned(),
        ObjectKind::Timer => "timerfd".to_owned(),
        ObjectKind::IoUring => "io_uring".to_owned(),
        ObjectKind::Anonymous => name(object).trim_matches(['[', ']']).to_owned(),
        ObjectKind::Futex => "futex".to_owned(),
    };
    let peer_pid = (object.peer_pid != 0).then_some(object.peer_pid);
    ObjectText { kind, text, peer_pid }
}

/// A device number as the kernel counts, `major:minor`.
#[must_use]
pub fn device(number: u32) -> String {
    format!("{}:{}", number >> 20, number & 0xf_ffff)
}

fn has(object: &Object, flag: u16) -> bool {
    object.head.flags & flag != 0
}

/// The used bytes of the path.
fn bytes(object: &Object) -> &[u8] {
    object.path.get(..usize::from(object.path_length)).unwrap_or(&object.path)
}

fn name(object: &Object) -> String {
    let bytes = bytes(object);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn path(object: &Object) -> String {
    let mut text = if has(object, object_flag::OBJECT_WHOLE) { name(object) } else { components(object) };
    if has(object, object_flag::OBJECT_UNMOUNTED) {
        text.insert_str(0, &format!("({})", device(object.device)));
    }
    if has(object, object_flag::OBJECT_DELETED) {
        text.push_str(" (deleted)");
    }
    text
}

/// Components are stored from the innermost on. The outermost may lack its end where they did not all fit.
fn components(object: &Object) -> String {
    let bytes = bytes(object);
    let cut = has(object, object_flag::OBJECT_CUT);
    let mut parts: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let unfinished = parts.pop().unwrap_or_default();
    if cut && parts.is_empty() {
        parts.push(unfinished);
    }
    let mut text = String::with_capacity(bytes.len() + 4);
    if cut {
        text.push('…');
    } else if parts.is_empty() {
        text.push('/');
    }
    for part in parts.iter().rev() {
        text.push('/');
        text.push_str(&String::from_utf8_lossy(part));
    }
    text
}

/// A Unix socket by its name, or by its peer's; names that begin with 0 are not in the file system and shown with an `@`.
fn unix(object: &Object) -> String {
    match bytes(object) {
        [] => format!("unix:[{}]", object.inode),
        [0, rest @ ..] => format!("unix:@{}", String::from_utf8_lossy(rest)),
        _ => format!("unix:{}", name(object)),
    }
}

fn connection(protocol: &str, object: &Object) -> String {
    let address = |bytes: &[u8; 16], port: u16| {
        let ip = match object.family {
            AF_INET => bytes.first_chunk::<4>().map(|four| IpAddr::from(*four)),
            AF_INET6 => Some(Ipv6Addr::from(*bytes).to_canonical()),
            _ => None,
        };
        ip.map_or_else(|| format!("family {}", object.family), |ip| SocketAddr::new(ip, port).to_string())
    };
    let local = address(&object.local, object.local_port);
    if has(object, object_flag::OBJECT_LISTENING) {
        format!("{protocol} {local} listening")
    } else if object.peer_port == 0 {
        format!("{protocol} {local}")
    } else {
        format!("{protocol} {local} → {}", address(&object.peer, object.peer_port))
    }
}

fn family(number: u8) -> String {
    match number {
        16 => "netlink".to_owned(),
        17 => "packet".to_owned(),
        38 => "alg".to_owned(),
        40 => "vsock".to_owned(),
        44 => "xdp".to_owned(),
        _ => format!("socket of family {number}"),
    }
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::ObjectKind;
    use stallscope_schemas::wire::{MAX_PATH, Object, object_flag};
    use zerocopy::{FromBytes, FromZeros};

    use super::{AF_INET, AF_INET6, describe};

    fn object(kind: ObjectKind, flags: u16, path: &[u8]) -> Object {
        let mut object = Object::new_zeroed();
        object.kind = kind.id();
        object.head.flags = flags;
        object.inode = 77;
        object.path[..path.len()].copy_from_slice(path);
        object.path_length = u16::try_from(path.len()).unwrap();
        object
    }

    fn text(object: &Object) -> String {
        describe(object).text
    }

    #[test]
    fn paths_are_put_together_from_the_inside_out() {
        let file = |flags, path: &[u8]| text(&object(ObjectKind::File, flags, path));
        assert_eq!(file(0, b"shard-0017\0data\0"), "/data/shard-0017");
        assert_eq!(file(0, b""), "/");
        assert_eq!(file(object_flag::OBJECT_DELETED, b"x\0tmp\0"), "/tmp/x (deleted)");
        assert_eq!(file(object_flag::OBJECT_CUT, b"x\0b\0a\0"), "…/a/b/x");
        assert_eq!(
            file(object_flag::OBJECT_CUT, b"x\0b\0unfinish"),
            "…/b/x",
            "an unfinished name is not shown"
        );
        assert_eq!(file(object_flag::OBJECT_CUT, b"verylong"), "…/verylong", "unless it is all there is");
        assert_eq!(file(object_flag::OBJECT_WHOLE, b"rel/ative\0"), "rel/ative");
        assert_eq!(file(0, b"\xff\0"), "/\u{fffd}");
    }

    #[test]
    fn sockets_are_named_by_their_addresses() {
        let mut tcp = object(ObjectKind::TcpSocket, 0, b"");
        tcp.family = AF_INET;
        tcp.local[..4].copy_from_slice(&[127, 0, 0, 1]);
        tcp.local_port = 4242;
        tcp.peer[..4].copy_from_slice(&[10, 0, 0, 7]);
        assert_eq!(text(&tcp), "tcp 127.0.0.1:4242");
        tcp.peer_port = 5555;
        assert_eq!(text(&tcp), "tcp 127.0.0.1:4242 → 10.0.0.7:5555");
        tcp.head.flags = object_flag::OBJECT_LISTENING;
        assert_eq!(text(&tcp), "tcp 127.0.0.1:4242 listening");
        let mut udp = object(ObjectKind::UdpSocket, 0, b"");
        udp.family = AF_INET6;
        udp.local = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        udp.local_port = 80;
        assert_eq!(text(&udp), "udp [2001:db8::1]:80");
        udp.local = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
        assert_eq!(text(&udp), "udp 10.1.2.3:80", "IPv4 through an IPv6 socket");
        assert_eq!(text(&object(ObjectKind::UnixSocket, 0, b"/run/x.sock\0")), "unix:/run/x.sock");
        assert_eq!(text(&object(ObjectKind::UnixSocket, 0, b"\0hidden")), "unix:@hidden");
        assert_eq!(text(&object(ObjectKind::UnixSocket, 0, b"")), "unix:[77]");
    }

    #[test]
    fn the_rest_is_named_by_what_it_is() {
        assert_eq!(text(&object(ObjectKind::Pipe, 0, b"")), "pipe:[77]");
        assert_eq!(text(&object(ObjectKind::Pipe, 0, b"fifo\0tmp\0")), "/tmp/fifo");
        assert_eq!(text(&object(ObjectKind::EventFd, 0, b"[eventfd]\0")), "eventfd");
        assert_eq!(text(&object(ObjectKind::Anonymous, 0, b"[signalfd]\0")), "signalfd");
        let mut disk = object(ObjectKind::BlockDevice, 0, b"");
        disk.device = 254 << 20 | 3;
        assert_eq!(text(&disk), "254:3");
        disk.peer_pid = 9;
        assert_eq!(describe(&disk).peer_pid, Some(9));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.to_le_bytes()[0]
            })
            .take(size_of::<Object>())
            .collect();
            let mut object = Object::read_from_bytes(&bytes).unwrap();
            object.kind %= 20;
            object.path_length %= 300;
            let text = text(&object);
            // Each byte becomes at most a replacement character.
            assert!(text.len() <= 3 * MAX_PATH + 100, "{text}");
        }
    }
}
