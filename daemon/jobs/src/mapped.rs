//! Frameworks, collective libraries and the Python among the files that a process has mapped.
//!
//! Adding one is adding a row.

use std::io::{ErrorKind, Read};

use crate::process::base_name;

/// What a program computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Framework {
    /// PyTorch.
    PyTorch,
    /// TensorFlow.
    TensorFlow,
    /// JAX.
    Jax,
    /// PaddlePaddle.
    Paddle,
    /// ONNX Runtime.
    OnnxRuntime,
    /// TensorRT.
    TensorRt,
    /// MPI from Python.
    Mpi4py,
}

impl Framework {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PyTorch => "pytorch",
            Self::TensorFlow => "tensorflow",
            Self::Jax => "jax",
            Self::Paddle => "paddle",
            Self::OnnxRuntime => "onnxruntime",
            Self::TensorRt => "tensorrt",
            Self::Mpi4py => "mpi4py",
        }
    }
}

/// A library of collectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collective {
    /// NCCL.
    Nccl,
    /// RCCL.
    Rccl,
    /// Any MPI.
    Mpi,
    /// Gloo.
    Gloo,
    /// oneCCL.
    OneCcl,
    /// UCC.
    Ucc,
    /// NVSHMEM.
    Nvshmem,
}

impl Collective {
    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nccl => "nccl",
            Self::Rccl => "rccl",
            Self::Mpi => "mpi",
            Self::Gloo => "gloo",
            Self::OneCcl => "oneccl",
            Self::Ucc => "ucc",
            Self::Nvshmem => "nvshmem",
        }
    }
}

/// A library in a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Library<T> {
    /// Which.
    pub kind: T,
    /// The mapped file, as the process's mount namespace names it.
    pub path: String,
    /// The file was replaced or removed since it was mapped.
    pub deleted: bool,
    /// It is part of another library, which `path` names: usual for this one, not checked.
    pub within: bool,
}

/// Major and minor version of CPython.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonVersion {
    /// 3.
    pub major: u8,
    /// 11 of 3.11.
    pub minor: u8,
}

impl std::fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Names of objects that mean a framework: the file name begins with it.
const FRAMEWORKS: &[(&str, Framework)] = &[
    ("libtorch.so", Framework::PyTorch),
    ("libtorch_cpu.so", Framework::PyTorch),
    ("libtorch_cuda.so", Framework::PyTorch),
    ("libtorch_hip.so", Framework::PyTorch),
    ("libtorch_python.so", Framework::PyTorch),
    ("libtensorflow_framework.so", Framework::TensorFlow),
    ("libtensorflow_cc.so", Framework::TensorFlow),
    ("_pywrap_tensorflow_internal.so", Framework::TensorFlow),
    ("libjax_common.so", Framework::Jax),
    ("xla_extension.so", Framework::Jax),
    ("libpaddle.so", Framework::Paddle),
    ("libonnxruntime.so", Framework::OnnxRuntime),
    ("onnxruntime_pybind11_state", Framework::OnnxRuntime),
    ("libnvinfer.so", Framework::TensorRt),
    ("MPI.", Framework::Mpi4py),
];

/// Names of objects that are collective libraries.
const COLLECTIVES: &[(&str, Collective)] = &[
    ("libnccl.so", Collective::Nccl),
    ("librccl.so", Collective::Rccl),
    ("libmpi.so", Collective::Mpi),
    ("libmpich.so", Collective::Mpi),
    ("libmpi_cray.so", Collective::Mpi),
    ("libmpi_gnu_", Collective::Mpi),
    ("libgloo.so", Collective::Gloo),
    ("libccl.so", Collective::OneCcl),
    ("libucc.so", Collective::Ucc),
    ("libnvshmem_host.so", Collective::Nvshmem),
];

/// Libraries that contain another unless that one is mapped for itself, as a rule of how PyTorch is built.
const CONTAINS: &[(&str, Collective)] =
    &[("libtorch_cpu.so", Collective::Gloo), ("libtorch_cuda.so", Collective::Nccl)];

/// Distinct libraries kept; a process that maps more under these names makes them up.
const LIBRARIES: usize = 64;

/// What the mapped files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) frameworks: Vec<Framework>,
    pub(crate) collectives: Vec<Library<Collective>>,
    pub(crate) python: Option<PythonVersion>,
}

impl Mapped {
    /// Reads a maps file in pieces: that of a large process has megabytes.
    pub(crate) fn read(mut maps: impl Read, exe: Option<&str>) -> Self {
        let mut mapped = Self { python: exe.and_then(python_of), ..Self::default() };
        let mut containers: Vec<Library<Collective>> = Vec::new();
        let mut last = String::new();
        let mut line: Vec<u8> = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            let bytes = match maps.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => piece.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // It ended: what was read so far is true.
                Err(_) => break,
            };
            for part in bytes.split_inclusive(|&b| b == b'\n') {
                // The kernel's paths are at most a page; a longer line is none of its.
                if line.len() + part.len() > 8 << 10 {
                    line.clear();
                    continue;
                }
                line.extend_from_slice(part);
                if line.last() == Some(&b'\n') {
                    if let Some(path) = path_of(&line)
                        && path != last
                    {
                        mapped.object(&path, &mut containers);
                        last = path.into_owned();
                    }
                    line.clear();
                }
            }
        }
        for library in containers {
            if mapped.collectives.iter().all(|c| c.kind != library.kind) {
                mapped.collectives.push(library);
            }
        }
        mapped.frameworks.sort_unstable();
        mapped.collectives.sort_unstable();
        mapped
    }

    fn object(&mut self, path: &str, containers: &mut Vec<Library<Collective>>) {
        let (path, deleted) = match path.strip_suffix(" (deleted)") {
            Some(path) => (path, true),
            None => (path, false),
        };
        let name = base_name(path);
        if self.python.is_none() {
            self.python = python_of(path);
        }
        if let Some((_, framework)) = FRAMEWORKS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            // mpi4py's extension is called MPI; its folder tells it from others of that name.
            let real = *framework != Framework::Mpi4py || path.contains("/mpi4py/");
            if real && !self.frameworks.contains(framework) {
                self.frameworks.push(*framework);
            }
        }
        let library = |kind, within| Library { kind, path: path.to_owned(), deleted, within };
        if let Some((_, kind)) = COLLECTIVES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            let library = library(*kind, false);
            if self.collectives.len() < LIBRARIES && !self.collectives.contains(&library) {
                self.collectives.push(library);
            }
        }
        if let Some((_, kind)) = CONTAINS.iter().find(|(prefix, _)| name.starts_with(prefix))
            && containers.iter().all(|c| c.kind != *kind)
        {
            containers.push(library(*kind, true));
        }
    }

    /// How sure it is that this process computes: for the choice among processes of one rank.
    pub(crate) fn weight(&self) -> u32 {
        u32::from(!self.collectives.is_empty()) * 2 + u32::from(!self.frameworks.is_empty())
    }
}

/// The path of a line `start-end perms offset dev inode   path`; none for memory without a file.
fn path_of(line: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    let at = line.iter().position(|&b| b == b'/')?;
    // Before the path there are only five fields of hexadecimal digits, colons, dashes and letters.
    let path = line.get(at..)?;
    Some(String::from_utf8_lossy(path.strip_suffix(b"\n").unwrap_or(path)))
}

/// The version that a path names: `python3.11`, `libpython3.11.so.1.0`, `x.cpython-311-x86_64-linux-gnu.so`.
fn python_of(path: &str) -> Option<PythonVersion> {
    let name = base_name(path);
    if let Some((_, rest)) = name.split_once(".cpython-3") {
        return minor(rest);
    }
    let rest = name.strip_prefix("libpython3.").or_else(|| name.strip_prefix("python3."))?;
    minor(rest)
}

fn minor(text: &str) -> Option<PythonVersion> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(PythonVersion { major: 3, minor: digits.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{Collective, Framework, Mapped, PythonVersion, python_of};

    fn maps(paths: &[&str]) -> Mapped {
        let mut text =
            String::from("7ffd000-7ffe000 rw-p 00000000 00:00 0                          [stack]\n");
        for path in paths {
            for permissions in ["r--p", "r-xp"] {
                text.push_str(&format!(
                    "7f0000000000-7f0000001000 {permissions} 00000000 fe:01 1234    {path}\n"
                ));
            }
        }
        Mapped::read(text.as_bytes(), None)
    }

    #[test]
    fn torch_brings_gloo_and_nccl_unless_they_are_there_themselves() {
        let torch = maps(&[
            "/t/lib/libtorch_cpu.so",
            "/t/lib/libtorch_cuda.so",
            "/usr/lib/python3.11/x.cpython-311-x86.so",
        ]);
        assert_eq!(torch.frameworks, [Framework::PyTorch]);
        let found: Vec<_> = torch.collectives.iter().map(|c| (c.kind, c.within)).collect();
        assert_eq!(found, [(Collective::Nccl, true), (Collective::Gloo, true)]);
        assert_eq!(torch.python, Some(PythonVersion { major: 3, minor: 11 }));

        let own = maps(&["/t/lib/libtorch_cpu.so", "/usr/lib/libgloo.so.0 (deleted)"]);
        let gloo = &own.collectives[0];
        assert_eq!((gloo.kind, gloo.within, gloo.deleted), (Collective::Gloo, false, true));
        assert_eq!(gloo.path, "/usr/lib/libgloo.so.0");
        assert_eq!(own.collectives.len(), 1);
    }

    #[test]
    fn plugins_are_not_the_library() {
        let mapped =
            maps(&["/l/libnccl-net.so", "/l/libmpi_mpifh.so.40", "/x/MPI.so", "/l/libmpi.so.40.40.1"]);
        assert_eq!(mapped.collectives.len(), 1);
        assert_eq!(mapped.collectives[0].path, "/l/libmpi.so.40.40.1");
        assert!(mapped.frameworks.is_empty());
    }

    #[test]
    fn a_hostile_file_ends_and_stays_small() {
        let mut text = vec![b'/'; 1 << 20];
        text.push(b'\n');
        for n in 0..1000 {
            text.extend_from_slice(format!("0-1 r-xp 0 0:0 1 /x/{n}/libmpi.so\n").as_bytes());
        }
        text.extend_from_slice(b"0-1 r-xp 0 0:0 1 /x/\xff\xfe/libnccl.so.2");
        let mapped = Mapped::read(text.as_slice(), None);
        assert_eq!(mapped.collectives.len(), 64);
    }

    #[test]
    fn python_versions_of_every_kind_of_file() {
        for (path, minor) in [
            ("/usr/bin/python3.9", 9),
            ("/usr/lib/libpython3.13.so.1.0", 13),
            ("/p/_ctypes.cpython-310-x86_64-linux-gnu.so", 10),
        ] {
            assert_eq!(python_of(path).map(|p| p.minor), Some(minor), "{path}");
        }
        for path in ["/usr/bin/python3", "/usr/lib/python3.11/os.py", "/usr/bin/python3.", "/x/python3.99999"]
        {
            assert_eq!(python_of(path), None, "{path}");
        }
    }
}
