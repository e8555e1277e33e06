//! A folder with the stand-ins under the names that programs load: put it into `LD_LIBRARY_PATH`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Which CUPTI (and with it which CUDA) the folder pretends to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// CUDA 11.8.
    V11_8,
    /// CUDA 12.4.
    V12_4,
    /// CUDA 12.8.
    V12_8,
    /// CUDA 13.0.
    V13_0,
    /// CUDA 13.3: several subscribers.
    V13_3,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::V11_8, Self::V12_4, Self::V12_8, Self::V13_0, Self::V13_3];

    /// As in `cupti.version`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V11_8 => "11.8",
            Self::V12_4 => "12.4",
            Self::V12_8 => "12.8",
            Self::V13_0 => "13.0",
            Self::V13_3 => "13.3",
        }
    }

    /// The version with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.name() == name)
    }

    /// SONAME of libcupti.
    #[must_use]
    pub fn cupti(self) -> &'static str {
        match self {
            Self::V11_8 => "libcupti.so.11.8",
            Self::V12_4 | Self::V12_8 => "libcupti.so.12",
            Self::V13_0 | Self::V13_3 => "libcupti.so.13",
        }
    }

    /// SONAME of libcudart.
    fn cudart(self) -> &'static str {
        match self {
            Self::V11_8 => "libcudart.so.11.0",
            Self::V12_4 | Self::V12_8 => "libcudart.so.12",
            Self::V13_0 | Self::V13_3 => "libcudart.so.13",
        }
    }

    /// Functions of libcupti that this version does not have.
    fn lacks(self) -> Vec<&'static str> {
        let mut lacks = Vec::new();
        if self == Self::V11_8 {
            lacks.push("cuptiGetGraphExecId");
        }
        if matches!(self, Self::V11_8 | Self::V12_4) {
            lacks.extend(["cuptiActivityEnableDriverApi", "cuptiActivityEnableRuntimeApi"]);
        }
        if matches!(self, Self::V11_8 | Self::V12_4 | Self::V12_8) {
            lacks.push("cuptiSubscribe_v2");
        }
        if self != Self::V13_3 {
            lacks.extend(SINCE_13_2);
        }
        lacks
    }
}

/// Functions that name a subscriber.
const SINCE_13_2: [&str; 11] = [
    "cuptiGetTimestamp_v2",
    "cuptiActivityEnable_v2",
    "cuptiActivityEnableAndDump_v2",
    "cuptiActivityDisable_v2",
    "cuptiActivityEnableDriverApi_v2",
    "cuptiActivityEnableRuntimeApi_v2",
    "cuptiActivityRegisterCallbacks_v2",
    "cuptiActivityGetNextRecord_v2",
    "cuptiActivityGetNumDroppedRecords_v2",
    "cuptiActivitySetAttribute_v2",
    "cuptiActivityGetAttribute_v2",
];

/// Make the folder, or bring it up to date.
///
/// # Errors
/// What the file system says; `NotFound` if the shared objects have not been built.
pub fn make(out: &Path, version: Version) -> io::Result<()> {
    fs::create_dir_all(out)?;
    let plain = [("cuda", "libcuda.so.1"), ("nccl", "libnccl.so.2"), ("nvml", "libnvidia-ml.so.1")];
    for (library, name) in plain {
        put(out, name, &fs::read(built(library)?)?)?;
    }
    let mut cudart = fs::read(built("cudart")?)?;
    replace(&mut cudart, b"libcudart.so.11.0\0", version.cudart());
    put(out, version.cudart(), &cudart)?;
    let mut cupti = fs::read(built("cupti")?)?;
    replace(&mut cupti, b"libcupti.so.11.8\0", version.cupti());
    replace(
        &mut cupti,
        b"STALLSCOPE-DOUBLE-CUPTI=12.8\0",
        &format!("STALLSCOPE-DOUBLE-CUPTI={}", version.name()),
    );
    for function in version.lacks() {
        // A name that is not what its hash says is found by nobody.
        replace(&mut cupti, format!("\0{function}\0").as_bytes(), &format!("\0-{}", &function[1..]));
    }
    put(out, version.cupti(), &cupti)
}

/// A library as this crate's build made it, with frame pointers; where that folder is gone (the executable was taken to
/// another machine), as cargo built it beside the executable or in the folder of dependencies.
fn built(library: &str) -> io::Result<PathBuf> {
    let file = format!("libdouble_{library}.so");
    let with_frame_pointers = Path::new(env!("DOUBLE_LIBRARIES")).join(&file);
    if with_frame_pointers.exists() {
        return Ok(with_frame_pointers);
    }
    let executable = std::env::current_exe()?;
    let folders = executable.ancestors().skip(1).take(2).flat_map(|f| [f.to_owned(), f.join("deps")]);
    folders.map(|f| f.join(&file)).find(|f| f.exists()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("{file} has not been built: cargo build -p stallscope-cupti-double"),
        )
    })
}

/// Overwrite every `old` by `new` and zeros.
fn replace(bytes: &mut [u8], old: &[u8], new: &str) {
    let found: Vec<usize> = memchr::memmem::find_iter(bytes, old).collect();
    for at in found {
        if let Some((text, rest)) = bytes[at..at + old.len()].split_at_mut_checked(new.len()) {
            text.copy_from_slice(new.as_bytes());
            rest.fill(0);
        }
    }
}

/// Write a library and its link without a version. The file is replaced, not overwritten: a process may have it
/// mapped.
fn put(out: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = out.join(format!("{name}.{}.new", std::process::id()));
    fs::write(&new, bytes)?;
    fs::rename(&new, out.join(name))?;
    let plain = name.split_once(".so").map_or(name, |(stem, _)| stem);
    let link = out.join(format!("{plain}.so"));
    match symlink(name, &link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    Ok(())
}
