//! C++ and Rust names as their authors wrote them, of bounded length whatever the symbol table says.
//!
//! A mangled name can stand for one that is exponentially longer: it refers back to its own parts. So the text is
//! written into a buffer that refuses more than [`LONGEST_BYTES`].

use std::fmt::{self, Write};
use std::sync::Arc;

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Names beyond this are cut: PyTorch's longest template instances have several kilobytes and nobody reads them.
const LONGEST_BYTES: usize = 512;

/// Mangled names beyond this are not even parsed.
const LONGEST_MANGLED_BYTES: usize = 64 << 10;

/// How deep the parser and the printer of C++ names may recurse.
const RECURSION_LIMIT: u32 = 96;

/// The name for people: demangled, without parameters and return type, without control characters.
#[must_use]
pub fn readable(symbol: &str) -> Arc<str> {
    let symbol = symbol.split('@').next().unwrap_or(symbol);
    let mut text = Bounded { text: String::new(), cut: false };
    if !demangle(symbol, &mut text) {
        text = Bounded { text: String::new(), cut: false };
        // An error here means that the text was cut, which is the purpose.
        let _ = text.write_str(symbol);
    }
    if text.cut {
        text.text.push('…');
    }
    if text.text.chars().any(char::is_control) {
        return text.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().into();
    }
    text.text.into()
}

/// Writes the demangled name; false if it is not a mangled one. A name that was cut counts as written.
fn demangle(symbol: &str, out: &mut Bounded) -> bool {
    if symbol.len() > LONGEST_MANGLED_BYTES {
        return false;
    }
    // Old Rust names parse as C++ too, with a hash at their end: Rust goes first.
    if let Ok(name) = rustc_demangle::try_demangle(symbol) {
        return write!(out, "{name:#}").is_ok() || out.cut;
    }
    let parse = ParseOptions::default().recursion_limit(RECURSION_LIMIT);
    let Ok(name) = Symbol::new_with_options(symbol, &parse) else {
        return false;
    };
    let options = DemangleOptions::default().no_params().no_return_type().recursion_limit(RECURSION_LIMIT);
    name.structured_demangle(out, &options).is_ok() || out.cut
}

/// Text that stops growing.
struct Bounded {
    text: String,
    cut: bool,
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = LONGEST_BYTES.saturating_sub(self.text.len());
        let fits = part.floor_char_boundary(room);
        self.text.push_str(&part[..fits]);
        self.cut |= fits < part.len();
        if self.cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_BYTES, readable};

    #[test]
    fn names_of_each_language_are_readable() {
        assert_eq!(&*readable("main"), "main");
        assert_eq!(&*readable("_ZN2at6native3addERKNS_6TensorES3_"), "at::native::add");
        assert_eq!(
            &*readable("_ZNSt6vectorIiSaIiEE9push_backEOi"),
            "std::vector<int, std::allocator<int> >::push_back"
        );
        assert_eq!(
            &*readable("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"),
            "core::fmt::Write::write_fmt"
        );
        assert_eq!(&*readable("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(&*readable("memcpy@@GLIBC_2.14"), "memcpy");
    }

    #[test]
    fn what_is_not_a_mangled_name_stays() {
        assert_eq!(&*readable("_Znonsense"), "_Znonsense");
        assert_eq!(&*readable("bad\u{1b}[31mname\n"), "bad [31mname ");
    }

    #[test]
    fn a_name_that_grows_exponentially_is_cut() {
        // Each template argument names twice what came before it.
        let mut mangled = String::from("_Z1fISt4pairIiiE");
        for previous in 0..30_u32 {
            let digit = char::from_digit(previous, 36).unwrap().to_ascii_uppercase();
            mangled.push_str(&format!("S_IS{digit}_S{digit}_E"));
        }
        mangled.push_str("Evv");
        let name = readable(&mangled);
        assert!(name.starts_with("f<std::pair<int, int>, "), "{name}");
        assert!(name.ends_with('…') && name.len() <= LONGEST_BYTES + 3, "{name}");
        assert!(readable(&"x".repeat(1 << 20)).len() <= LONGEST_BYTES + 3);
    }
}
