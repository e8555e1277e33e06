//! How the shared object is linked: with nothing.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in [
        // No start files and no libraries: they would need symbols of a C library, and the agent may need none.
        "-nostartfiles",
        "-nodefaultlibs",
        "-Wl,-z,defs",
        "-Wl,-z,noexecstack",
        "-Wl,-z,relro",
        "-Wl,-z,now",
        // Loaders from before 2017 read one of the tables, others the other.
        "-Wl,--hash-style=both",
        "-Wl,--build-id=none",
        "-Wl,-soname,libstallscope-agent.so",
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
