//! Verdicts on jobs that are small enough to be written down.

use stallscope_schemas::record::CollectiveOp;
use stallscope_schemas::units::{StackId, StringId, TimeNs};

use super::{Call, Fault, Group, Hang, Job, Progress, RankLog, State, judge};

const MS: i64 = 1_000_000;

fn group(description: &str, members: &[u32]) -> Group {
    Group {
        name: format!("{description}-{members:?}"),
        description: description.to_owned(),
        members: members.to_vec(),
    }
}

fn open(group: usize, sequence: u64, at_ms: i64) -> Call {
    Call {
        group,
        sequence,
        operation: CollectiveOp::AllReduce,
        name: StringId(1),
        size: Some(16),
        datatype: StringId(2),
        peer: None,
        state: State::Scheduled,
        at: TimeNs(at_ms * MS),
        stack: StackId(0),
    }
}

fn over(group: usize, sequence: u64, at_ms: i64) -> Call {
    Call { state: State::Completed, ..open(group, sequence, at_ms) }
}

fn receive(group: usize, sequence: u64, peer: u32, at_ms: i64) -> Call {
    let call = open(group, sequence, at_ms);
    Call { operation: CollectiveOp::Recv, peer: Some(peer), size: None, name: StringId(3), ..call }
}

fn job(groups: &[Group], ranks: &[(u32, &[Call])]) -> Job {
    let log = |&(rank, calls): &(u32, &[Call])| RankLog { rank, calls: calls.to_vec(), ..RankLog::default() };
    Job { groups: groups.to_vec(), ranks: ranks.iter().map(log).collect() }
}

fn only(job: &Job) -> Hang {
    let mut hangs = judge(job);
    assert_eq!(hangs.len(), 1, "{hangs:#?}");
    hangs.remove(0)
}

#[test]
fn a_rank_that_waits_in_another_group_is_no_culprit() {
    // 0 and 1 wait for 2 in A; 2 waits for 3 in B; nothing keeps 3.
    let groups = [group("A", &[0, 1, 2]), group("B", &[2, 3])];
    let ranks: [(u32, &[Call]); 4] =
        [(0, &[open(0, 5, 1)]), (1, &[open(0, 5, 1)]), (2, &[open(1, 9, 2)]), (3, &[over(1, 8, 0)])];
    let hang = only(&job(&groups, &ranks));
    assert_eq!((hang.fault, hang.culprits), (Fault::NeverCame, vec![3]));
    assert_eq!((hang.waiting, hang.behind), (vec![2], vec![0, 1]));
    let path: Vec<u32> = hang.path.iter().map(|wait| wait.rank).collect();
    assert_eq!(path, [0, 2]);
    assert_eq!((hang.heard, hang.members), (2, 2));
}

#[test]
fn what_others_waited_in_when_they_went_on_excuses_nobody() {
    // 3 is missing in A #6, 2 in A #7; that 2 waits in #6 for 3 kept nobody else from calling #7.
    let calls = [open(0, 6, 1), open(0, 7, 2)];
    let groups = [group("A", &[0, 1, 2, 3])];
    let ranks: [(u32, &[Call]); 4] = [(0, &calls), (1, &calls), (2, &[open(0, 6, 1)]), (3, &[over(0, 5, 0)])];
    let culprits: Vec<u32> = judge(&job(&groups, &ranks)).into_iter().flat_map(|h| h.culprits).collect();
    assert_eq!(culprits, [3, 2]);
}

#[test]
fn what_the_others_have_left_is_the_ranks_own_doing() {
    // 2 is still in #5, which 0 and 1 have left, and has not come to #6.
    let groups = [group("A", &[0, 1, 2])];
    let done = [over(0, 5, 0), open(0, 6, 1)];
    let hang = only(&job(&groups, &[(0, &done), (1, &done), (2, &[open(0, 5, 0)])]));
    assert_eq!((hang.fault, hang.culprits), (Fault::NeverCame, vec![2]));
    assert_eq!(hang.lagging.len(), 1);
}

#[test]
fn a_rank_that_saw_nothing_end_is_to_blame_beside_one_that_never_came() {
    // 3 never came to B #9, in which 2 waits, and with it all others; 1 came to everything, but of A it has not seen #5 end,
    // nor #6, which 0 has left with its data.
    let groups = [group("A", &[0, 1]), group("B", &[2, 3]), group("C", &[0, 1, 2])];
    let first = [over(0, 5, 0), over(0, 6, 1), open(2, 1, 2)];
    let second = [open(0, 5, 0), open(0, 6, 1), open(2, 1, 2)];
    let rest: [(u32, &[Call]); 2] = [(2, &[open(1, 9, 1)]), (3, &[over(1, 8, 0)])];
    let all: Vec<(u32, &[Call])> = [(0, &first[..]), (1, &second[..])].into_iter().chain(rest).collect();
    let blamed: Vec<(Fault, Vec<u32>)> =
        judge(&job(&groups, &all)).into_iter().map(|h| (h.fault, h.culprits)).collect();
    assert_eq!(blamed, [(Fault::NeverCame, vec![3]), (Fault::DeviceStuck, vec![1])]);
    // In one operation that the other one has left it may be a moment behind.
    let second = [over(0, 5, 0), open(0, 6, 1), open(2, 1, 2)];
    let all: Vec<(u32, &[Call])> = [(0, &first[..]), (1, &second[..])].into_iter().chain(rest).collect();
    assert_eq!(only(&job(&groups, &all)).culprits, [3]);
}

#[test]
fn in_a_circle_those_are_to_blame_that_most_are_stuck_for() {
    // Three call A and then B, one calls B and then A.
    let groups = [group("A", &[0, 1, 2, 3]), group("B", &[0, 1, 2, 3])];
    let (first, second) = ([open(0, 1, 1)], [open(1, 1, 1)]);
    let ranks: [(u32, &[Call]); 4] = [(0, &first), (1, &first), (2, &first), (3, &second)];
    let hang = only(&job(&groups, &ranks));
    assert_eq!(hang.culprits, [3]);
    // Of two, neither is more to blame, unless one fell silent long before.
    let pair = [group("A", &[0, 1]), group("B", &[0, 1])];
    let hang = judge(&job(&pair, &[(0, &first), (1, &second)]));
    assert!(hang.iter().all(|h| h.fault == Fault::Circle), "{hang:#?}");
    let mut culprits: Vec<u32> = hang.into_iter().flat_map(|h| h.culprits).collect();
    culprits.sort_unstable();
    assert_eq!(culprits, [0, 1]);
    let late = [open(1, 1, 500)];
    assert_eq!(only(&job(&pair, &[(0, &first), (1, &late)])).culprits, [0]);
}

#[test]
fn of_two_that_differ_groups_of_the_same_kind_decide() {
    let groups = [group("A", &[0, 1]), group("A", &[2, 3])];
    let usual = [open(0, 4, 1)];
    let other = [Call { size: Some(17), ..open(0, 4, 1) }];
    let there = [open(1, 4, 1)];
    let pair: [(u32, &[Call]); 2] = [(0, &usual), (1, &other)];
    assert_eq!(only(&job(&groups, &pair)).culprits, [0, 1]);
    let all: [(u32, &[Call]); 4] = [(0, &usual), (1, &other), (2, &there), (3, &there)];
    let hang = only(&job(&groups, &all));
    assert_eq!((hang.fault, hang.culprits), (Fault::Differs, vec![1]));
}

#[test]
fn of_those_that_came_the_one_whose_device_has_not_begun_is_to_blame() {
    let groups = [group("A", &[0, 1, 2])];
    let begun = [Call { state: State::Started, ..open(0, 3, 1) }];
    let waits = [Call { state: State::Started, ..over(0, 2, 0) }, open(0, 3, 1)];
    let mut job = job(&groups, &[(0, &begun), (1, &begun), (2, &waits[1..])]);
    // Without knowing that its begins would have been seen, nobody is.
    let hang = only(&job);
    assert_eq!((hang.fault, hang.culprits.len()), (Fault::Unknown, 0));
    let progress = Progress { enqueued: Some(3), started: Some(2), completed: Some(2) };
    job.ranks[2].progress.insert(0, progress);
    let hang = only(&job);
    assert_eq!((hang.fault, hang.culprits), (Fault::DeviceStuck, vec![2]));
}

#[test]
fn a_rank_that_was_not_heard_is_blamed_if_nothing_else_explains_it() {
    let groups = [group("A", &[0, 1, 2]), group("B", &[0, 3])];
    // 2 was not heard, all others wait for it.
    let calls = [open(0, 2, 1)];
    let hang = only(&job(&groups, &[(0, &calls), (1, &calls), (3, &[])]));
    assert_eq!((hang.fault, hang.culprits, hang.heard), (Fault::Unheard, vec![2], 2));
    // 1 was heard and never came: 2 may be waiting for it as the others do.
    let hang = only(&job(&groups, &[(0, &calls), (1, &[]), (3, &[])]));
    assert_eq!((hang.fault, hang.culprits), (Fault::NeverCame, vec![1]));
}

#[test]
fn a_receive_waits_for_its_sender() {
    let groups = [group("P", &[0, 1])];
    let hang = only(&job(&groups, &[(0, &[receive(0, 7, 1, 1)]), (1, &[])]));
    assert_eq!((hang.fault, hang.culprits), (Fault::NeverCame, vec![1]));
    // The other side says that it has handed over its part, #7.
    let mut told = job(&groups, &[(0, &[receive(0, 7, 1, 1)]), (1, &[])]);
    let progress = Progress { enqueued: Some(7), started: None, completed: Some(7) };
    told.ranks[1].progress.insert(0, progress);
    assert!(judge(&told).iter().all(|h| h.culprits.is_empty()));
}

#[test]
fn nothing_is_said_where_nothing_is_open() {
    let groups = [group("A", &[0, 1])];
    assert!(judge(&job(&groups, &[(0, &[over(0, 1, 0)]), (1, &[])])).is_empty());
    assert!(judge(&Job::default()).is_empty());
}

#[test]
fn what_makes_no_sense_is_no_panic() {
    // Groups that do not exist, members that name themselves twice, sends to oneself, the same call twice.
    let wild = [
        open(7, u64::MAX, i64::MAX / MS),
        receive(0, 0, 0, 0),
        receive(0, 0, 0, 0),
        open(0, 3, 0),
        open(0, 3, 0),
        receive(0, 1, 99, -5),
    ];
    let _ = judge(&job(&[group("A", &[0, 0, 1, 1])], &[(0, &wild), (1, &wild), (2, &wild)]));
}
