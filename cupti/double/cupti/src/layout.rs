//! Versions of CUPTI and the sizes of their records.
//!
//! Taken from the headers of each version's wheel (`cupti_activity.h`); a test compares them where the headers are.

use std::sync::OnceLock;

use stallscope_double_shared::settings::{self, Settings};

/// A version whose layout is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V11_8,
    V12_4,
    V12_8,
    V13_0,
    V13_3,
}

const VERSIONS: [(&str, Version, u32); 5] = [
    ("11.8", Version::V11_8, 18),
    ("12.4", Version::V12_4, 22),
    ("12.8", Version::V12_8, 26),
    ("13.0", Version::V13_0, 130_001),
    ("13.3", Version::V13_3, 130_301),
];

/// The version of the folder that this file lies in: whoever makes the folder writes it here.
#[used]
static FOLDER: [u8; 32] = *b"STALLSCOPE-DOUBLE-CUPTI=12.8\0\0\0\0";

impl Version {
    /// The version that the settings name, else that of the folder.
    fn chosen(settings: &Settings) -> Self {
        let folder = std::hint::black_box(&FOLDER);
        let text = folder.split(|b| *b == b'=').nth(1).unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let wanted = settings.get("cupti.version").unwrap_or(text.trim_end_matches('\0'));
        let known = VERSIONS.iter().find(|(name, ..)| *name == wanted);
        let Some((_, version, _)) = known else {
            eprintln!("stallscope double: no layout of CUPTI {wanted}");
            std::process::abort();
        };
        *version
    }

    /// What cuptiGetVersion says.
    pub(crate) fn number(self) -> u32 {
        VERSIONS.iter().find(|(_, v, _)| *v == self).map_or(0, |(.., number)| *number)
    }

    /// May there be several subscribers? From 13.2 on.
    pub(crate) fn many_subscribers(self) -> bool {
        self >= Self::V13_3
    }
}

/// The version that this process has seen first: reading records asks for it without a lock.
pub(crate) fn in_use() -> Version {
    static VERSION: OnceLock<Version> = OnceLock::new();
    *VERSION.get_or_init(|| Version::chosen(&settings::now()))
}

/// CUPTI's kinds of activity, as far as the stand-in has them.
pub(crate) mod kind {
    pub(crate) const MEMCPY: u32 = 1;
    pub(crate) const MEMSET: u32 = 2;
    pub(crate) const KERNEL: u32 = 3;
    pub(crate) const DRIVER: u32 = 4;
    pub(crate) const RUNTIME: u32 = 5;
    pub(crate) const CONTEXT: u32 = 9;
    pub(crate) const CONCURRENT_KERNEL: u32 = 10;
    pub(crate) const OVERHEAD: u32 = 17;
    pub(crate) const CUDA_EVENT: u32 = 36;
    pub(crate) const STREAM: u32 = 37;
    pub(crate) const SYNCHRONIZATION: u32 = 38;
    pub(crate) const GRAPH_TRACE: u32 = 51;

    /// Kinds that can be enabled and of which the stand-in never has a record.
    pub(crate) const EMPTY: [u32; 10] = [8, 11, 12, 13, 22, 39, 45, 46, 49, 50];
}

/// Kind and its record's size in each version.
const SIZES: [(u32, [usize; 5]); 12] = [
    (kind::MEMCPY, [88, 88, 96, 96, 96]),
    (kind::MEMSET, [88, 88, 88, 88, 88]),
    (kind::KERNEL, [200, 208, 208, 216, 232]),
    (kind::DRIVER, [40, 40, 40, 40, 40]),
    (kind::RUNTIME, [40, 40, 40, 40, 40]),
    (kind::CONTEXT, [16, 24, 32, 32, 40]),
    (kind::CONCURRENT_KERNEL, [200, 208, 208, 216, 232]),
    (kind::OVERHEAD, [40, 56, 56, 56, 56]),
    (kind::CUDA_EVENT, [24, 24, 56, 56, 56]),
    (kind::STREAM, [24, 24, 24, 24, 24]),
    (kind::SYNCHRONIZATION, [40, 40, 56, 56, 56]),
    (kind::GRAPH_TRACE, [48, 56, 56, 56, 56]),
];

/// Bytes of a record; none for kinds that the stand-in does not have.
pub(crate) fn size(version: Version, kind: u32) -> Option<usize> {
    let sizes = SIZES.iter().find(|(k, _)| *k == kind).map(|(_, sizes)| sizes)?;
    sizes.get(version as usize).copied()
}

/// Can the kind be enabled?
pub(crate) fn is_known(kind: u32) -> bool {
    SIZES.iter().any(|(k, _)| *k == kind) || kind::EMPTY.contains(&kind)
}
