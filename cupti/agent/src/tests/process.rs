//! What asks the process itself.

use std::ffi::{CStr, c_char, c_void};

use crate::elf;
use crate::library::{descriptor_path, find_line, path_of_cupti};
use crate::sys;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

#[test]
fn functions_of_the_c_library_are_found_without_asking_the_loader() {
    for name in [c"dlopen", c"dlsym", c"pthread_create", c"pthread_detach", c"getpid"] {
        // SAFETY: a name that ends with a zero; null searches everywhere.
        let expected = unsafe { dlsym(std::ptr::null_mut(), name.as_ptr()) };
        let found = elf::function(name).unwrap_or_else(|| panic!("{name:?} is there"));
        assert_eq!(found, expected.addr() as u64, "{name:?}");
    }
    assert_eq!(elf::function(c"stallscope_has_no_such_function"), None);
}

#[test]
fn a_line_is_found_however_it_is_cut_into_reads() {
    let text = b"first\n55-66 r-xp 0 /opt/cuda/libcupti.so.2025.1\nlast\n";
    for size in 1..=text.len() {
        let mut reads = text.chunks(size);
        let found = find_line(
            |room| {
                reads.next().map_or(0, |part| {
                    room[..part.len()].copy_from_slice(part);
                    part.len()
                })
            },
            |line| path_of_cupti(line).map(CStr::to_owned),
        );
        assert_eq!(found.as_deref(), Some(c"/opt/cuda/libcupti.so.2025.1"), "in parts of {size}");
    }
}

#[test]
fn other_paths_are_not_cuptis_and_a_line_without_end_ends_the_search() {
    assert_eq!(path_of_cupti(b"1-2 r 0 /lib/libcuda.so.1\0"), None);
    assert_eq!(path_of_cupti(b"1-2 r 0 [heap]\0"), None);
    assert_eq!(path_of_cupti(b"1-2 r 0 /a/libcupti.so.12\0"), Some(c"/a/libcupti.so.12"));
    let mut reads = 0;
    let found = find_line(
        |room| {
            reads += 1;
            room.fill(b'x');
            room.len()
        },
        |_| Some(()),
    );
    assert_eq!((found, reads), (None, 1));
}

#[test]
fn a_descriptor_has_a_path() {
    let path = |fd| CStr::from_bytes_until_nul(&descriptor_path(fd)).unwrap().to_owned();
    assert_eq!(path(0).as_c_str(), c"/proc/self/fd/0");
    assert_eq!(path(1234).as_c_str(), c"/proc/self/fd/1234");
    assert_eq!(path(u32::MAX).as_c_str(), c"/proc/self/fd/4294967295");
}

#[test]
fn the_environment_says_what_to_collect() {
    let value = |environment: &[u8]| crate::launch::number(environment, c"STALLSCOPE_KINDS=");
    assert_eq!(value(b"A=1\0STALLSCOPE_KINDS=1024\0B=2\0"), Some(1024));
    assert_eq!(value(b"XSTALLSCOPE_KINDS=1\0"), None);
    assert_eq!(value(b"STALLSCOPE_KINDS=many\0"), None);
    assert_eq!(value(b"STALLSCOPE_KINDS=99999999999999999999999\0"), None);
    assert_eq!(value(b""), None);
}

#[test]
fn memory_with_a_descriptor_can_be_written_and_not_be_cut() {
    let file = sys::memory_file(c"stallscope-test", 8192).unwrap();
    assert_eq!(sys::size(file), Ok(8192));
    let base = sys::map_shared(file, 8192).unwrap();
    let last = base.as_ptr().wrapping_add(8191);
    // SAFETY: just mapped, of that size.
    unsafe { last.write(7) };
    let path = format!("/proc/self/fd/{}", file.0);
    let open = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    assert!(open.set_len(4096).is_err(), "it is sealed");
    sys::close(file);
    // SAFETY: the mapping from above.
    unsafe { sys::unmap(base, 8192) };
    assert_eq!(sys::size(file), Err(sys::Errno(9)), "it is closed");
}

#[test]
fn clocks_are_the_systems() {
    let mut time = [0_i64; 2];
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut i64) -> i32;
    }
    for (id, now) in [(1, sys::monotonic_ns as fn() -> u64), (0, sys::realtime_ns)] {
        let before = now();
        // SAFETY: fills two words.
        assert_eq!(unsafe { clock_gettime(id, time.as_mut_ptr()) }, 0);
        let libc = time[0] as u64 * 1_000_000_000 + time[1] as u64;
        assert!((before..=now()).contains(&libc));
    }
}
