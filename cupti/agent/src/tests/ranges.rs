use crate::ranges::{ENTRIES, Open, Ranges};

#[test]
fn a_range_is_remembered_until_it_is_closed() {
    let mut table = vec![Open::default(); ENTRIES];
    let mut ranges = Ranges::new(&mut table);
    let range = |id| Open::new(id, 10 + u64::from(id), 3, 4, 5);
    assert!(ranges.open(range(0)));
    assert!(ranges.open(range(7)));
    assert_eq!(ranges.close(7), Some(range(7)));
    assert_eq!(ranges.close(7), None);
    assert_eq!(ranges.close(0), Some(range(0)));
    assert_eq!(ranges.close(1), None);
}

#[test]
fn as_many_ranges_as_there_are_places_can_be_open_and_one_more_cannot() {
    let mut table = vec![Open::default(); ENTRIES];
    let mut ranges = Ranges::new(&mut table);
    for id in 0..ENTRIES as u32 {
        assert!(ranges.open(Open::new(id, 0, 0, 0, 0)), "{id}");
    }
    assert!(!ranges.open(Open::new(ENTRIES as u32, 0, 0, 0, 0)));
    for id in 0..ENTRIES as u32 {
        assert!(ranges.close(id).is_some(), "{id}");
    }
}
