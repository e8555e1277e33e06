//! Names of the kernel's functions, from `/proc/kallsyms`. Kept as one text and one table, about 6 MB for 150,000 of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use crate::frame::{Missing, NativeFrame};

/// Far more than any kernel has.
const MOST_SYMBOLS: usize = 4 << 20;

/// The kernel's functions by address.
#[derive(Debug)]
pub(crate) struct Kallsyms {
    symbols: Vec<Symbol>,
    text: String,
    modules: Vec<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Symbol {
    address: u64,
    name: u32,
    name_bytes: u16,
    module: u16,
}

impl Kallsyms {
    /// Reads the kernel's list. Without the right to see addresses (kptr_restrict) it has none, and every frame says
    /// [`Missing::KernelHidden`].
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let mut all = Self::empty();
        let mut from = BufReader::with_capacity(64 << 10, File::open(path)?);
        let mut line = Vec::new();
        while all.symbols.len() < MOST_SYMBOLS {
            line.clear();
            // No symbol is longer; a line that is gets cut here, and its rest is not a symbol.
            if io::Read::take(&mut from, 1024).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            all.add(&line);
        }
        all.symbols.sort_by_key(|symbol| symbol.address);
        all.symbols.shrink_to_fit();
        all.text.shrink_to_fit();
        Ok(all)
    }

    /// What stands in where the list cannot be read.
    pub(crate) fn empty() -> Self {
        Self { symbols: Vec::new(), text: String::new(), modules: vec!["[kernel]".into()] }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The frame at an address.
    pub(crate) fn frame(&self, address: u64) -> NativeFrame {
        let kernel = &self.modules[0];
        if self.is_empty() {
            return NativeFrame::unnamed("[kernel]", kernel, Missing::KernelHidden);
        }
        let found = self.symbols[..self.symbols.partition_point(|s| s.address <= address)].last();
        let named = found.and_then(|symbol| {
            let begin = symbol.name as usize;
            let name = self.text.get(begin..begin + usize::from(symbol.name_bytes))?;
            Some(NativeFrame::named(name, self.modules.get(usize::from(symbol.module))?))
        });
        named.unwrap_or_else(|| NativeFrame::unnamed("[kernel]", kernel, Missing::Symbol))
    }

    fn add(&mut self, line: &[u8]) -> Option<()> {
        let line = std::str::from_utf8(line).ok()?.trim_end();
        let (symbol, module) = line.split_once('\t').unwrap_or((line, ""));
        let mut fields = symbol.splitn(3, ' ');
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let kind = fields.next()?;
        let name = fields.next()?;
        // Zero is what those see who may not see addresses; data is not code.
        if address == 0 || !matches!(kind, "t" | "T" | "w" | "W" | "i") {
            return None;
        }
        let module = self.module(module.trim());
        let begin = u32::try_from(self.text.len()).ok()?;
        let name_bytes = u16::try_from(name.len()).ok()?;
        self.text.push_str(name);
        self.symbols.push(Symbol { address, name: begin, name_bytes, module });
        Some(())
    }

    /// The module's number; those of a module follow each other.
    fn module(&mut self, name: &str) -> u16 {
        if name.is_empty() {
            return 0;
        }
        if self.modules.last().is_none_or(|last| &**last != name) {
            self.modules.push(name.into());
        }
        // Beyond 65,535 changes of module, and there are hundreds, it is the kernel's.
        u16::try_from(self.modules.len() - 1).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Kallsyms;
    use crate::frame::Missing;

    fn read(text: &str) -> Kallsyms {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Kallsyms::read(file.path()).unwrap()
    }

    #[test]
    fn functions_and_their_modules_are_found() {
        let kernel = read(
            "ffffffff81000000 T _text\nffffffff81000100 t do_read\nffffffff82000000 D some_data\n\
             ffffffffc0000000 t nvme_poll\t[nvme]\nffffffffc0001000 t bpf_prog_6deef7357e7b4530_x\t[bpf]\n",
        );
        assert_eq!(kernel.frame(0xffff_ffff_8100_0120).to_string(), "do_read [kernel]");
        assert_eq!(kernel.frame(0xffff_ffff_8200_0000).to_string(), "do_read [kernel]", "data is not code");
        assert_eq!(kernel.frame(0xffff_ffff_c000_0001).to_string(), "nvme_poll [nvme]");
        assert_eq!(&*kernel.frame(0xffff_ffff_c000_1001).module, "[bpf]");
        assert_eq!(kernel.frame(1).missing, Some(Missing::Symbol));
    }

    #[test]
    fn hidden_addresses_are_named_as_such() {
        let kernel = read("0000000000000000 T _text\n0000000000000000 t do_read\n");
        assert!(kernel.is_empty());
        assert_eq!(kernel.frame(0xffff_ffff_8100_0120).missing, Some(Missing::KernelHidden));
    }

    #[test]
    fn the_running_kernel_is_read() {
        let kernel = Kallsyms::read("/proc/kallsyms".as_ref()).unwrap();
        let symbol = kernel
            .symbols
            .iter()
            .find(|s| kernel.text[s.name as usize..].starts_with("do_sys_poll") && s.name_bytes == 11);
        match symbol {
            Some(symbol) => assert_eq!(kernel.frame(symbol.address + 1).to_string(), "do_sys_poll [kernel]"),
            None => assert!(kernel.is_empty(), "a kernel without poll"),
        }
    }
}
