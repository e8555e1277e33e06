use crate::progress::{ENTRIES, Entry, Progress};

const COMPUTE: (u32, u32) = (1, 7);
const COPIES: (u32, u32) = (1, 8);

fn table() -> Vec<Entry> {
    vec![Entry::default(); ENTRIES]
}

#[test]
fn what_hangs_on_one_stream_stays_out_while_another_goes_on() {
    let mut table = table();
    let mut progress = Progress::new(&mut table);
    progress.launch(5, 100);
    for newer in 6..50 {
        progress.launch(newer, 100 + u64::from(newer));
        progress.operation(newer, COMPUTE, 200 + u64::from(newer));
        progress.operation(newer, COPIES, 200 + u64::from(newer));
        assert_eq!(progress.unfinished_since(), Some(100));
    }
    progress.operation(5, COPIES, 900);
    assert_eq!(progress.unfinished_since(), None);
}

#[test]
fn on_a_single_stream_it_begins_after_what_was_before_it() {
    let mut table = table();
    let mut progress = Progress::new(&mut table);
    progress.launch(5, 100);
    progress.launch(6, 110);
    progress.operation(5, COMPUTE, 300);
    assert_eq!(progress.unfinished_since(), Some(300));
    progress.operation(6, COMPUTE, 400);
    assert_eq!(progress.unfinished_since(), None);
}

#[test]
fn what_is_out_while_later_work_has_come_back_is_on_another_stream() {
    let mut table = table();
    let mut progress = Progress::new(&mut table);
    // The first operation of its stream hangs: nothing ever came back from there.
    progress.launch(5, 100);
    progress.launch(6, 110);
    progress.operation(6, COMPUTE, 300);
    progress.launch(7, 310);
    assert_eq!(progress.unfinished_since(), Some(100));
}

#[test]
fn an_operation_may_come_before_its_launch_and_several_times() {
    let mut table = table();
    let mut progress = Progress::new(&mut table);
    progress.operation(5, COMPUTE, 300);
    progress.operation(5, COMPUTE, 310);
    progress.launch(5, 100);
    assert_eq!(progress.unfinished_since(), None);
}

#[test]
fn a_launch_of_which_nothing_comes_is_forgotten_in_the_end() {
    let mut table = table();
    let mut progress = Progress::new(&mut table);
    // Numbers wrap.
    let first = u32::MAX - 3;
    progress.launch(first, 100);
    for ahead in 1..ENTRIES as u32 {
        progress.operation(first.wrapping_add(ahead), COMPUTE, 50);
        assert_eq!(progress.unfinished_since(), Some(100), "{ahead}");
    }
    progress.operation(first.wrapping_add(ENTRIES as u32), COMPUTE, 50);
    assert_eq!(progress.unfinished_since(), None);
    progress.launch(first, 100);
    assert_eq!(progress.unfinished_since(), None, "older than what is there");
}
