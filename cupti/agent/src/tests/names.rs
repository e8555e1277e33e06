use crate::names::{ENTRIES, Entry, MAX_NAMES, Names, hash};
use crate::text::{MAX_BYTES, Texts};

fn table() -> Vec<Entry> {
    vec![Entry::default(); ENTRIES]
}

#[test]
fn a_name_is_written_once_and_numbered_from_one() {
    let mut table = table();
    let mut names = Names::new(&mut table);
    let mut written = Vec::new();
    for text in ["a", "b", "a", "", "b", ""] {
        names.number(text.as_bytes(), |number, text| {
            written.push((number, text.to_vec()));
            true
        });
    }
    assert_eq!(written, [(1, b"a".to_vec()), (2, b"b".to_vec()), (3, Vec::new())]);
    assert_eq!(names.number(b"b", |_, _| panic!("it is known")), Some(2));
}

#[test]
fn a_name_whose_record_was_not_written_stays_unknown() {
    let mut table = table();
    let mut names = Names::new(&mut table);
    assert_eq!(names.number(b"a", |_, _| false), None);
    assert_eq!(names.number(b"b", |_, _| true), Some(1));
    assert_eq!(names.number(b"a", |number, _| number == 2), Some(2));
}

#[test]
fn a_full_table_refuses_new_names_and_knows_the_old_ones() {
    let names_at_most = if cfg!(miri) { return } else { MAX_NAMES };
    let mut table = table();
    let mut names = Names::new(&mut table);
    for number in 1..=names_at_most {
        assert_eq!(names.number(&number.to_le_bytes(), |_, _| true), Some(number), "no two have one hash");
    }
    assert_eq!(names.number(b"one more", |_, _| panic!("there is no number left")), None);
    for number in 1..=names_at_most {
        assert_eq!(names.number(&number.to_le_bytes(), |_, _| panic!("it is known")), Some(number));
    }
}

#[test]
fn texts_that_differ_in_one_byte_or_in_length_have_different_hashes() {
    let longest = if cfg!(miri) { 70 } else { 300 };
    let mut hashes = std::collections::BTreeSet::new();
    let mut texts = 0;
    for length in 0..longest {
        let mut text = vec![0_u8; length];
        hashes.insert(hash(&text));
        texts += 1;
        for place in 0..length {
            for byte in [1, 0x80] {
                text[place] = byte;
                hashes.insert(hash(&text));
                texts += 1;
            }
            text[place] = 0;
        }
    }
    assert_eq!(hashes.len(), texts);
}

#[test]
fn a_text_ends_at_its_zero_or_where_nobody_looks_any_more() {
    let texts = Texts::default();
    let text = c"kernel";
    // SAFETY: a text that ends with a zero, or null.
    assert_eq!(unsafe { texts.at(text.as_ptr().expose_provenance() as u64) }, Some(text.to_bytes()));
    // SAFETY: as above.
    assert_eq!(unsafe { texts.at(0) }, None);
    let mut long = vec![b'x'; MAX_BYTES + 100];
    *long.last_mut().unwrap() = 0;
    // SAFETY: as above.
    assert_eq!(unsafe { texts.at(long.as_ptr().expose_provenance() as u64) }, Some(&long[..MAX_BYTES]));
}
