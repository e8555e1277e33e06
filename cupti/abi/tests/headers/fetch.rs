//! Wheels, and a compiler run on the headers in them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{succeed, write};

/// The headers of one version.
#[derive(Debug)]
pub(crate) struct Headers {
    work: PathBuf,
    folders: [PathBuf; 2],
}

impl Headers {
    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.folders[0].join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// What a C program that includes `cupti.h` prints.
    pub(crate) fn run(&self, program: &str) -> String {
        let (source, executable) = (self.work.join("layout.c"), self.work.join("layout"));
        write(&source, program);
        let mut cc = Command::new("cc");
        cc.arg("-I").arg(&self.work);
        for folder in &self.folders {
            cc.arg("-isystem").arg(folder);
        }
        succeed(cc.arg(&source).arg("-o").arg(&executable));
        String::from_utf8(succeed(&mut Command::new(executable))).expect("text")
    }
}

/// Fetches what is not there yet.
pub(crate) fn headers(cupti: &str, runtime: &str) -> Headers {
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cupti-headers");
    let folders = [cupti, runtime].map(|wheel| include(&work, wheel));
    // The runtime's headers include one that is in the compiler's wheel only: what it defines are marks for nvcc.
    std::fs::create_dir_all(work.join("crt")).expect("a folder");
    write(
        &work.join("crt/host_defines.h"),
        "#define __device_builtin__\n\
         #define __device_builtin_texture_type__\n\
         #define __device_builtin_surface_type__\n\
         #define __cudart_builtin__\n\
         #define __align__(n) __attribute__((aligned(n)))\n\
         #define __builtin_align__(n) __align__(n)\n\
         #define __host__\n\
         #define __device__\n\
         #define CUDARTAPI\n\
         #define CUDARTAPI_CDECL\n",
    );
    Headers { work, folders }
}

/// The folder of headers in a wheel.
fn include(work: &Path, wheel: &str) -> PathBuf {
    let folder = work.join(wheel.replace("==", "-"));
    if !folder.join("done").exists() {
        std::fs::create_dir_all(&folder).expect("a folder");
        succeed(
            Command::new("python3")
                .args([
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--disable-pip-version-check",
                    wheel,
                    "--dest",
                ])
                .arg(&folder),
        );
        let file = files(&folder).into_iter().find(|path| path.extension().is_some_and(|x| x == "whl"));
        let file = file.unwrap_or_else(|| panic!("{wheel} is not a wheel"));
        succeed(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&file).arg(&folder));
        std::fs::remove_file(file).expect("the wheel was there");
        // The libraries are most of it, and nothing is done with them.
        for part in files(&folder.join("nvidia")) {
            let _ = std::fs::remove_dir_all(part.join("lib"));
        }
        write(&folder.join("done"), "");
    }
    let parts = files(&folder.join("nvidia"));
    let include = parts.iter().map(|part| part.join("include")).find(|include| include.is_dir());
    include.unwrap_or_else(|| panic!("{wheel} has no headers"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}
