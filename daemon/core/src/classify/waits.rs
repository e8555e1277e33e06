//! What a wait inside a system call was for: a table over the call and what its descriptor stands for, as data.

use std::sync::LazyLock;

use stallscope_schemas::record::ObjectKind;

/// What a wait inside a system call was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitClass {
    /// A lock, or a condition that another thread makes true.
    Lock,
    /// Time to pass.
    Sleep,
    /// A file, a directory or a block device.
    BlockIo,
    /// Another process, or another thread through a descriptor.
    Ipc,
    /// A peer on a network.
    Network,
    /// Any of several descriptors: what ended the wait says more.
    Poll,
    /// Anything else in a system call.
    Syscall,
}

const TABLE: &str = include_str!("waits.tsv");

type Rule = (&'static str, Option<ObjectKind>, WaitClass);

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| TABLE.lines().filter_map(rule).collect());

fn rule(line: &'static str) -> Option<Rule> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut fields = line.split('\t');
    let call = fields.next()?;
    let object = match fields.next()? {
        "*" => None,
        name => Some(*ObjectKind::ALL.iter().find(|k| k.name() == name)?),
    };
    let class = match fields.next()? {
        "lock" => WaitClass::Lock,
        "sleep" => WaitClass::Sleep,
        "block-io" => WaitClass::BlockIo,
        "ipc" => WaitClass::Ipc,
        "network" => WaitClass::Network,
        "poll" => WaitClass::Poll,
        "syscall" => WaitClass::Syscall,
        _ => return None,
    };
    Some((call, object, class))
}

/// The class of a wait by the call's name and what its descriptor stands for.
#[must_use]
pub fn wait_class(call: &str, object: ObjectKind) -> WaitClass {
    RULES
        .iter()
        .find(|(name, kind, _)| (*name == "*" || *name == call) && kind.is_none_or(|k| k == object))
        .map_or(WaitClass::Syscall, |(.., class)| *class)
}

/// Whether a call waits for any of several descriptors, for a limited time if it is told to: poll, select, epoll.
#[must_use]
pub fn is_poll(call: &str) -> bool {
    wait_class(call, ObjectKind::None) == WaitClass::Poll
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::ObjectKind;

    use super::{TABLE, WaitClass, is_poll, rule, wait_class};

    #[test]
    fn a_poll_is_one_whatever_its_descriptor_stands_for() {
        let polls = ["poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2"];
        assert!(polls.into_iter().all(is_poll));
        assert!(!["futex", "clock_nanosleep", "read", "recvmsg"].into_iter().any(is_poll));
    }

    #[test]
    fn every_line_of_the_table_is_a_rule_or_a_comment() {
        for line in TABLE.lines().filter(|l| !l.starts_with('#')) {
            assert!(rule(line).is_some(), "{line:?}");
        }
    }

    #[test]
    fn the_descriptor_decides_where_the_call_does_not() {
        for (call, object, class) in [
            ("futex", ObjectKind::Futex, WaitClass::Lock),
            ("read", ObjectKind::File, WaitClass::BlockIo),
            ("read", ObjectKind::Pipe, WaitClass::Ipc),
            ("read", ObjectKind::TcpSocket, WaitClass::Network),
            ("read", ObjectKind::Timer, WaitClass::Sleep),
            ("read", ObjectKind::None, WaitClass::Syscall),
            ("recvfrom", ObjectKind::UnixSocket, WaitClass::Ipc),
            ("recvfrom", ObjectKind::None, WaitClass::Network),
            ("epoll_wait", ObjectKind::Epoll, WaitClass::Poll),
            ("poll", ObjectKind::Pipe, WaitClass::Ipc),
            ("flock", ObjectKind::File, WaitClass::Lock),
            ("fsync", ObjectKind::None, WaitClass::BlockIo),
            ("clock_nanosleep", ObjectKind::None, WaitClass::Sleep),
            ("wait4", ObjectKind::None, WaitClass::Syscall),
            ("ioctl", ObjectKind::CharDevice, WaitClass::Syscall),
        ] {
            assert_eq!(wait_class(call, object), class, "{call} on {}", object.name());
        }
    }
}
