//! What the arguments of an event say.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use stallscope_schemas::record::CopyKind;

use super::event::trailing_number;
use super::scanner::{Cursor, Value};

/// Arguments of an operation on a device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeviceArgs<'a> {
    /// Ordinal of the device.
    pub(super) device: Option<i64>,
    /// Stream or queue.
    pub(super) stream: Option<u64>,
    /// Correlation id; 0 where there is none.
    pub(super) correlation: u64,
    /// Bytes moved or filled; 0 where unknown.
    pub(super) bytes: u64,
    /// Whether a graph node's id is given.
    pub(super) graph_node: bool,
    /// `kind` as AMD gives it ("HtoD"), or what XLA says of a copy ("kind_src:pinned kind_dst:device size:4 …").
    pub(super) copy: &'a [u8],
    /// What a synchronisation was ("Stream Wait Event").
    pub(super) sync_kind: &'a [u8],
    /// The stream that is waited for.
    pub(super) wait_on_stream: Option<u64>,
    /// Metadata of a collective.
    pub(super) collective: CollectiveArgs<'a>,
}

/// Metadata that PyTorch attaches to the kernels of collectives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CollectiveArgs<'a> {
    /// Name of the operation, raw; this is a collective where it is present.
    pub(super) name: Option<&'a [u8]>,
    /// Elements that this rank put in.
    pub(super) elements: u64,
    /// Type of an element, raw.
    pub(super) element_type: &'a [u8],
    /// Name of the process group, raw.
    pub(super) group: &'a [u8],
    /// Ranks of the process group, raw.
    pub(super) ranks: &'a [u8],
    /// Number of ranks.
    pub(super) group_size: u64,
    /// Position in the sequence of the group.
    pub(super) sequence: Option<u64>,
}

impl CollectiveArgs<'_> {
    /// Bytes that this rank put in; 0 where unknown.
    pub(super) fn bytes(&self) -> u64 {
        self.elements.saturating_mul(element_size(self.element_type))
    }
}

impl<'a> DeviceArgs<'a> {
    /// Reads an object of arguments. Of a broken one, what came before the break.
    pub(super) fn parse(args: &'a [u8]) -> Self {
        let mut found = Self::default();
        each_member(args, |key, value| {
            match key {
                b"device" => found.device = value.integer().filter(|&d| d >= 0),
                b"stream" => found.stream = unsigned(value),
                b"correlation" | b"correlation_id" => found.correlation = unsigned(value).unwrap_or(0),
                b"bytes" => found.bytes = unsigned(value).unwrap_or(0),
                b"graph node id" => found.graph_node = unsigned(value).is_some_and(|id| id != 0),
                b"kind" => found.copy = value.text(),
                b"memcpy_details" => {
                    found.copy = value.text();
                    found.bytes =
                        detail(found.copy, b"size:").and_then(trailing_number).unwrap_or(found.bytes);
                }
                b"cuda_sync_kind" => found.sync_kind = value.text(),
                b"wait_on_stream" => found.wait_on_stream = unsigned(value),
                b"Collective name" => {
                    found.collective.name = Some(value.text()).filter(|name| !name.is_empty())
                }
                b"In msg nelems" => found.collective.elements = unsigned(value).unwrap_or(0),
                b"dtype" => found.collective.element_type = value.text(),
                b"Process Group Name" => found.collective.group = value.text(),
                b"Process Group Ranks" => found.collective.ranks = value.text(),
                b"Group size" => found.collective.group_size = unsigned(value).unwrap_or(0),
                b"Seq" => found.collective.sequence = unsigned(value),
                _ => {}
            }
            true
        });
        found
    }
}

/// Calls `take` with each member until it says that it has seen enough.
pub(super) fn each_member<'a>(object: &'a [u8], mut take: impl FnMut(&'a [u8], Value<'a>) -> bool) {
    let mut cursor = Cursor::new(object);
    if cursor.object().is_err() {
        return;
    }
    while let Ok(Some((key, value))) = cursor.member() {
        if !take(key, value) {
            return;
        }
    }
}

/// A member of an object by its key.
pub(super) fn member<'a>(object: &'a [u8], wanted: &[u8]) -> Option<Value<'a>> {
    let mut found = None;
    each_member(object, |key, value| {
        found = (key == wanted).then_some(value);
        found.is_none()
    });
    found
}

/// The correlation id of a host call; 0 where it has none.
pub(super) fn correlation(args: &[u8]) -> u64 {
    let mut found = 0;
    each_member(args, |key, value| {
        if matches!(key, b"correlation" | b"correlation_id") {
            found = unsigned(value).unwrap_or(0);
            return false;
        }
        true
    });
    found
}

static CALL_STACK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"Call stack\""));

/// The raw Python stack of an operator in traces of 2021 and 2022.
pub(super) fn call_stack(args: &[u8]) -> Option<&[u8]> {
    // Arguments of operators are long and rarely have a stack: search before parsing.
    CALL_STACK.find(args)?;
    match member(args, b"Call stack")? {
        Value::String(stack) if !stack.is_empty() => Some(stack),
        _ => None,
    }
}

/// A count: digits, of which a fraction is dropped.
pub(super) fn unsigned(value: Value<'_>) -> Option<u64> {
    let text = match value {
        Value::String(text) | Value::Scalar(text) => text,
        Value::Container(_) => return None,
    };
    let whole = text.split(|&b| b == b'.').next()?;
    std::str::from_utf8(whole).ok()?.parse().ok()
}

/// The word of a description that begins with `key`.
fn detail<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    text.split(|&b| b == b' ').find(|word| word.starts_with(key))
}

/// Bytes of an element by the name of its type, as PyTorch, NumPy or C call it.
fn element_size(name: &[u8]) -> u64 {
    let name = name.strip_prefix(b"c10::").unwrap_or(name);
    const SIZES: &[(u64, &[&str])] = &[
        (
            1,
            &[
                "byte",
                "char",
                "bool",
                "uint8",
                "int8",
                "float8_e4m3fn",
                "float8_e5m2",
                "float8_e4m3fnuz",
                "float8_e5m2fnuz",
                "quint8",
                "qint8",
                "unsigned char",
                "signed char",
            ],
        ),
        (2, &["half", "bfloat16", "short", "float16", "int16", "uint16", "c10::half"]),
        (4, &["float", "int", "float32", "int32", "uint32", "complexhalf", "qint32"]),
        (8, &["double", "long", "float64", "int64", "uint64", "complexfloat", "long int", "complex64"]),
        (16, &["complexdouble", "complex128"]),
    ];
    let is = |known: &&str| known.as_bytes().eq_ignore_ascii_case(name);
    SIZES.iter().find(|(_, names)| names.iter().any(is)).map_or(0, |&(size, _)| size)
}

/// Between what a copy moved data, by a name such as "Memcpy HtoD (Pinned -> Device)", "CopyHostToDevice", "MemcpyD2H"
/// or "DtoD", or by XLA's description.
pub(super) fn copy_kind(text: &str) -> CopyKind {
    let text = text.to_ascii_lowercase();
    let has = |any: &[&str]| any.iter().any(|part| text.contains(part));
    let pageable = has(&["pageable"]);
    let pinned = has(&["pinned"]);
    let to_device = has(&["htod", "h2d", "hosttodevice"]) || has(&["kind_src:"]) && has(&["kind_dst:device"]);
    let to_host =
        has(&["dtoh", "d2h", "devicetohost"]) || has(&["kind_src:device"]) && !has(&["kind_dst:device"]);
    if has(&["ptop", "p2p", "peertopeer", "peer"]) {
        CopyKind::PeerToPeer
    } else if has(&["dtod", "d2d", "devicetodevice"]) || has(&["kind_src:device kind_dst:device"]) {
        CopyKind::DeviceToDevice
    } else if to_device {
        match (pageable, pinned) {
            (true, _) => CopyKind::HostToDevicePageable,
            (_, true) => CopyKind::HostToDevicePinned,
            _ => CopyKind::HostToDevice,
        }
    } else if to_host {
        match (pageable, pinned) {
            (true, _) => CopyKind::DeviceToHostPageable,
            (_, true) => CopyKind::DeviceToHostPinned,
            _ => CopyKind::DeviceToHost,
        }
    } else {
        CopyKind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::CopyKind;

    use super::{DeviceArgs, call_stack, copy_kind, correlation, element_size};

    #[test]
    fn copies_are_told_apart_by_the_names_of_all_vendors() {
        for (name, kind) in [
            ("Memcpy HtoD (Pageable -> Device)", CopyKind::HostToDevicePageable),
            ("Memcpy HtoD (Pinned -> Device)", CopyKind::HostToDevicePinned),
            ("Memcpy HtoD (Host -> Device)", CopyKind::HostToDevice),
            ("Memcpy DtoH (Device -> Pageable)", CopyKind::DeviceToHostPageable),
            ("Memcpy DtoH (Device -> Pinned)", CopyKind::DeviceToHostPinned),
            ("Memcpy DtoD (Device -> Device)", CopyKind::DeviceToDevice),
            ("Memcpy PtoP (Device -> Device)", CopyKind::PeerToPeer),
            ("CopyHostToDevice", CopyKind::HostToDevice),
            ("CopyDeviceToHost", CopyKind::DeviceToHost),
            ("MemcpyD2H", CopyKind::DeviceToHost),
            ("DtoD", CopyKind::DeviceToDevice),
            ("kind_src:pinned kind_dst:device size:4 dest:0 async:1", CopyKind::HostToDevicePinned),
            ("kind_src:device kind_dst:pageable size:4 dest:0 async:1", CopyKind::DeviceToHostPageable),
            ("kind_src:device kind_dst:device size:4", CopyKind::DeviceToDevice),
            ("Memcpy HtoH", CopyKind::Unknown),
        ] {
            assert_eq!(copy_kind(name), kind, "{name}");
        }
    }

    #[test]
    fn metadata_of_a_collective_gives_its_bytes() {
        let args =
            br#"{"device":1,"stream":20,"correlation":5,"Collective name":"allreduce","In msg nelems":1024,
            "dtype":"BFloat16","Process Group Name":"3","Group size":8,"Seq":"17"}"#;
        let args = DeviceArgs::parse(args);
        assert_eq!((args.device, args.stream, args.correlation), (Some(1), Some(20), 5));
        assert_eq!((args.collective.name, args.collective.bytes()), (Some(&b"allreduce"[..]), 2048));
        assert_eq!((args.collective.group_size, args.collective.sequence), (8, Some(17)));
    }

    #[test]
    fn arguments_of_wrong_types_are_as_good_as_absent() {
        let args = DeviceArgs::parse(
            br#"{"device":-1,"stream":[7],"correlation":"x","bytes":{},"graph node id":0,"#,
        );
        assert_eq!((args.device, args.stream, args.correlation, args.bytes), (None, None, 0, 0));
        assert!(!args.graph_node);
        assert_eq!(DeviceArgs::parse(b"[1]").device, None);
    }

    #[test]
    fn element_sizes_of_unknown_types_are_unknown() {
        assert_eq!([element_size(b"Float"), element_size(b"c10::Half"), element_size(b"nullptr")], [4, 2, 0]);
    }

    #[test]
    fn stacks_and_correlations_are_found_among_other_arguments() {
        let args = br#"{"cbid":41,"External id":2,"correlation":9,"Call stack":"a.py(1): f;b.py(2): g"}"#;
        assert_eq!(correlation(args), 9);
        assert_eq!(call_stack(args), Some(&b"a.py(1): f;b.py(2): g"[..]));
        assert_eq!(call_stack(br#"{"Call stack":""}"#), None);
        assert_eq!(call_stack(br#"{"x":"\"Call stack\""}"#), None);
    }
}
