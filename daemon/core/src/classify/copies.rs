//! Between what a copy moved data: CUPTI's numbers, which are the same in every version, as kinds and names.
//!
//! Kinds of memory are numbered as Nsight Systems exports them: one less than CUPTI's own.
//!
//! Names are spelled as PyTorch's traces spell them, so that one copy has one name whatever recorded it.

use stallscope_schemas::record::CopyKind;

/// Kinds of memory (`srcKind`, `dstKind`, `memKind`).
#[must_use]
pub fn memory_kind(kind: Option<i64>) -> &'static str {
    match kind {
        Some(0) => "Pageable",
        Some(1) => "Pinned",
        Some(2) => "Device",
        Some(3) => "Array",
        Some(4) => "Managed",
        Some(5) => "Device Static",
        Some(6) => "Managed Static",
        _ => "Unknown",
    }
}

/// What a copy is to the ledger: which way it went, and whether the host side was page-locked.
#[must_use]
pub fn copy_kind(kind: Option<i64>, from: Option<i64>, to: Option<i64>, two_devices: bool) -> CopyKind {
    match kind {
        // To the device or to an array on it; 11 is a migration of managed memory.
        Some(1 | 3 | 11) => match from {
            Some(0) => CopyKind::HostToDevicePageable,
            Some(1) => CopyKind::HostToDevicePinned,
            _ => CopyKind::HostToDevice,
        },
        Some(2 | 4 | 12) => match to {
            Some(0) => CopyKind::DeviceToHostPageable,
            Some(1) => CopyKind::DeviceToHostPinned,
            _ => CopyKind::DeviceToHost,
        },
        Some(5..=8 | 13) if two_devices => CopyKind::PeerToPeer,
        Some(5..=8) => CopyKind::DeviceToDevice,
        Some(10 | 13) => CopyKind::PeerToPeer,
        _ => CopyKind::Unknown,
    }
}

/// `Memcpy HtoD (Pageable -> Device)`.
#[must_use]
pub fn copy_name(kind: Option<i64>, from: &str, to: &str) -> String {
    let way = match kind {
        Some(1) => "HtoD",
        Some(2) => "DtoH",
        Some(3) => "HtoA",
        Some(4) => "AtoH",
        Some(5) => "AtoA",
        Some(6) => "AtoD",
        Some(7) => "DtoA",
        Some(8) => "DtoD",
        Some(9) => "HtoH",
        Some(10) => "PtoP",
        Some(11) => "unified HtoD",
        Some(12) => "unified DtoH",
        Some(13) => "unified DtoD",
        _ => "Unknown",
    };
    if from == "Unknown" && to == "Unknown" {
        format!("Memcpy {way}")
    } else {
        format!("Memcpy {way} ({from} -> {to})")
    }
}

/// `Memset (Device)`.
#[must_use]
pub fn memset_name(kind: &str) -> String {
    format!("Memset ({kind})")
}

#[cfg(test)]
mod tests {
    use stallscope_schemas::record::CopyKind;

    use super::{copy_kind, copy_name};

    #[test]
    fn the_host_side_decides_whether_a_copy_is_pinned() {
        assert_eq!(copy_kind(Some(1), Some(0), Some(2), false), CopyKind::HostToDevicePageable);
        assert_eq!(copy_kind(Some(1), Some(1), Some(2), false), CopyKind::HostToDevicePinned);
        assert_eq!(copy_kind(Some(1), None, None, false), CopyKind::HostToDevice);
        assert_eq!(copy_kind(Some(2), Some(2), Some(0), false), CopyKind::DeviceToHostPageable);
        assert_eq!(copy_kind(Some(2), Some(2), Some(1), false), CopyKind::DeviceToHostPinned);
    }

    #[test]
    fn a_copy_between_two_devices_is_peer_to_peer_whatever_it_calls_itself() {
        assert_eq!(copy_kind(Some(8), Some(2), Some(2), false), CopyKind::DeviceToDevice);
        assert_eq!(copy_kind(Some(8), Some(2), Some(2), true), CopyKind::PeerToPeer);
        assert_eq!(copy_kind(Some(10), Some(2), Some(2), true), CopyKind::PeerToPeer);
        assert_eq!(copy_kind(Some(99), None, None, false), CopyKind::Unknown);
    }

    #[test]
    fn a_copy_without_memory_kinds_is_named_by_its_way() {
        assert_eq!(copy_name(Some(1), "Pageable", "Device"), "Memcpy HtoD (Pageable -> Device)");
        assert_eq!(copy_name(Some(8), "Unknown", "Unknown"), "Memcpy DtoD");
    }
}
