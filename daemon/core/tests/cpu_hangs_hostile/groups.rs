//! Groups that are easily taken for another, and calls whose numbers do not tell.

use stallscope_schemas::record::call_flags;

use super::common::{Host, MS};
use super::{
    CALL, CANNOT_TELL, Call, S, blamed, init, late, nobody, open, push, rank, reads, steps, verdicts,
};

const UNMATCHED: &str = "its calls could not be matched with those of other ranks";

/// Ranks are in an operation on a duplicate of the world, after some on it and many on another one.
fn duplicate(sees_init: bool, apart: i64, before: i64, two_comes: bool) -> Host {
    let mut host = Host::new();
    let until = 6 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        if sees_init {
            init(&mut host, thread);
        }
        let (of_library, own) = (format!("mpi@7f{of}100"), format!("mpi@7f{of}200"));
        let call = Call { sequence: 1, ..CALL };
        steps(&mut host, of, thread, 1..10, call);
        steps(&mut host, of, thread, 10..40, Call { group: &of_library, ..call });
        steps(&mut host, of, thread, 40..40 + before, Call { group: &own, ..call });
        let came = 500 * MS + i64::from(of) * apart;
        if of == 2 && !two_comes {
            reads(&mut host, thread, came, until);
        } else {
            push(&mut host, thread, (came, until), Call { group: &own, ..open(before + 1) });
        }
    }
    host
}

#[test]
fn of_a_communicator_that_is_too_young_to_be_told_from_others_nobody_is_blamed() {
    for sees_init in [false, true] {
        for apart in [100_000, 20 * MS] {
            for before in [0, 3] {
                for two_comes in [true, false] {
                    nobody(duplicate(sees_init, apart, before, two_comes), CANNOT_TELL, UNMATCHED);
                }
            }
        }
    }
    nobody(duplicate(true, 20 * MS, 6, true), "all 4 ranks came to MPI_Allreduce #7", "all have arrived");
    blamed(duplicate(true, 20 * MS, 6, false), &[2], "rank 2 never arrived at MPI_Allreduce #7");
}

#[test]
fn groups_that_have_members_elsewhere_too_are_not_taken_for_each_other() {
    let mut host = Host::new();
    let until = 6 * S;
    for of in 0..4 {
        let (process, thread) = rank(&mut host, of, until);
        host.writer.update_process(process, |p| p.world_size = Some(8));
        // Ranks 0 and 1 are in one group of four, 2 and 3 in another, which works at other times.
        let group = format!("mpi@7f{of}100");
        let shift = if of < 2 { 0 } else { 5 * MS };
        for number in 1..50 {
            let from = number * 10 * MS + shift + late(of);
            push(&mut host, thread, (from, from + MS), Call { sequence: number, group: &group, ..CALL });
        }
        if of == 0 {
            push(&mut host, thread, (500 * MS, until), Call { group: &group, ..open(50) });
        } else {
            reads(&mut host, thread, 510 * MS, until);
        }
    }
    let finding =
        blamed(host, &[1], "never arrived at MPI_Allreduce #50 of the communicator of ranks 0-1 and others");
    assert_eq!(finding.blame.confidence, Some(0.5));
}

#[test]
fn an_address_that_is_used_again_is_another_group() {
    let again = |sees_init: bool, two_comes: bool, goes_on: bool| {
        let mut host = Host::new();
        let until = 8 * S;
        for of in 0..4 {
            let (_, thread) = rank(&mut host, of, until);
            if sees_init {
                init(&mut host, thread);
            }
            let old = format!("mpi@7f{of}100");
            // Rank 2 gets another address.
            let new = if of == 2 { "mpi@7f2200" } else { old.as_str() };
            let call = Call { sequence: 1, ..CALL };
            steps(&mut host, of, thread, 1..10, call);
            steps(&mut host, of, thread, 10..60, Call { group: &old, ..call });
            // Where its end was not seen, numbers go on.
            let first = if goes_on && of != 2 { 51 } else { 1 };
            steps(&mut host, of, thread, 60..64, Call { group: new, sequence: first, ..call });
            if of == 2 && !two_comes {
                reads(&mut host, thread, 700 * MS, until);
            } else {
                push(&mut host, thread, (700 * MS + late(of), until), Call { group: new, ..open(first + 4) });
            }
        }
        host
    };
    for sees_init in [false, true] {
        for goes_on in [false, true] {
            let came = "all 4 ranks came to MPI_Allreduce";
            nobody(again(sees_init, true, goes_on), came, "all have arrived");
            let missing = "rank 2 never arrived at MPI_Allreduce";
            blamed(again(sees_init, false, goes_on), &[2], missing);
        }
    }
}

#[test]
fn a_call_that_was_not_counted_does_not_make_a_rank_late() {
    for (missed, sees_init) in [(280, false), (280, true), (200, false), (200, true), (297, true)] {
        for two_comes in [true, false] {
            let mut host = Host::new();
            let until = 8 * S;
            for of in 0..4 {
                let (_, thread) = rank(&mut host, of, until);
                if sees_init {
                    init(&mut host, thread);
                }
                let call = Call { sequence: 1, ..CALL };
                let last = if of == 2 {
                    steps(&mut host, of, thread, 1..missed, call);
                    steps(&mut host, of, thread, missed + 1..300, Call { sequence: missed, ..CALL });
                    299
                } else {
                    steps(&mut host, of, thread, 1..300, call);
                    300
                };
                if of == 2 && !two_comes {
                    reads(&mut host, thread, 3 * S, until);
                } else {
                    push(&mut host, thread, (3 * S + late(of), until), open(last));
                }
            }
            if two_comes {
                nobody(host, "all 4 ranks came to MPI_Allreduce of MPI_COMM_WORLD", "all have arrived");
            } else {
                blamed(host, &[2], "rank 2 never arrived at MPI_Allreduce of MPI_COMM_WORLD");
            }
        }
    }
}

#[test]
fn nor_does_it_where_all_were_counted_from_the_start() {
    let mut host = Host::new();
    let until = 8 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        init(&mut host, thread);
        let call = Call { sequence: 1, ..CALL };
        steps(&mut host, of, thread, 1..2, call);
        let next = if of == 2 {
            2
        } else {
            steps(&mut host, of, thread, 2..3, Call { sequence: 2, ..call });
            3
        };
        steps(&mut host, of, thread, 3..4, Call { sequence: next, ..call });
        push(&mut host, thread, (3 * S + late(of), until), open(next + 1));
    }
    nobody(host, "all 4 ranks came to MPI_Allreduce of MPI_COMM_WORLD", "all have arrived");
}

#[test]
fn after_a_pause_of_the_probes_the_order_of_calls_tells_who_has_not_come() {
    let mut host = Host::new();
    let until = 20 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        steps(&mut host, of, thread, 1..50, Call { sequence: 1, ..CALL });
        for number in 200..250 {
            let from = number * 10 * MS + late(of);
            push(&mut host, thread, (from, from + MS), CALL);
        }
        if of == 2 {
            reads(&mut host, thread, 2500 * MS, until);
        } else {
            push(&mut host, thread, (2500 * MS, until), open(0));
        }
    }
    blamed(host, &[2], "rank 2 never arrived at MPI_Allreduce of MPI_COMM_WORLD; 3 ranks wait for it");
}

#[test]
fn many_communicators_are_told_apart() {
    let many = |late_rank: Option<u32>, sees_init: bool| {
        let mut host = Host::new();
        let until = 8 * S;
        for of in 0..40u32 {
            let (process, thread) = rank(&mut host, of, until);
            host.writer.update_process(process, |p| p.world_size = Some(40));
            if sees_init {
                init(&mut host, thread);
            }
            let group = |number: i64| format!("mpi@7f{:x}{number}00", of + 16);
            let behind = i64::from(of) * 10_000;
            let from = |number: i64| number * 10 * MS + behind;
            for number in 0..7 {
                for count in 1..30 {
                    let from = from(number * 29 + count);
                    let call = Call { sequence: count, group: &group(number), size: 40, ..CALL };
                    push(&mut host, thread, (from, from + MS - behind), call);
                }
            }
            if late_rank == Some(of) {
                reads(&mut host, thread, from(204), until);
            } else {
                push(&mut host, thread, (from(204), until), Call { group: &group(6), size: 40, ..open(30) });
            }
        }
        host
    };
    for sees_init in [true, false] {
        nobody(many(None, sees_init), "all 40 ranks came to MPI_Allreduce #30", "all have arrived");
        blamed(many(Some(39), sees_init), &[39], "rank 39 never arrived at MPI_Allreduce #30");
    }
}

#[test]
fn of_more_communicators_than_can_be_compared_those_that_hang_come_first() {
    let mut host = Host::new();
    let until = 8 * S;
    for of in 0..4 {
        let (_, thread) = rank(&mut host, of, until);
        for number in 0..400 {
            let from = MS + number * MS + late(of);
            let group = format!("mpi@7f{of}{number:04x}");
            push(&mut host, thread, (from, from + MS / 2), Call { sequence: 1, group: &group, ..CALL });
        }
        let group = format!("mpi@7f{of}f000");
        steps(&mut host, of, thread, 60..90, Call { sequence: 1, group: &group, ..CALL });
        if of == 2 {
            reads(&mut host, thread, 900 * MS, until);
        } else {
            push(&mut host, thread, (900 * MS + late(of), until), Call { group: &group, ..open(31) });
        }
    }
    let finding = blamed(host, &[2], "rank 2 never arrived at MPI_Allreduce #31");
    assert!(finding.evidence.contains("not all groups"), "{}", finding.evidence);
    assert!(finding.evidence.contains("were compared: there are too many"), "{}", finding.evidence);
}

#[test]
fn what_sizes_a_file_claims_does_not_say_how_much_is_looked_at() {
    let world = 1u32 << 20;
    let claims = |groups: i64, calls: i64| {
        let mut host = Host::new();
        let until = 6 * S;
        for of in 0..2 {
            let (process, _) = rank(&mut host, of, until);
            host.writer.update_process(process, |p| p.world_size = Some(world));
            for group in 0..groups {
                let name = format!("mpi:{group}");
                let call = Call { group: &name, size: world.into(), ..CALL };
                for number in 0..calls {
                    let tid = 1000 + group * calls + number;
                    let thread = host.thread(process, tid, "worker", 0, until);
                    if number == 0 {
                        steps(&mut host, of, thread, 1..6, Call { sequence: 1, ..call });
                    }
                    let goes_on = Call { sequence: 6 + number, flags: call_flags::OPEN, ..call };
                    push(&mut host, thread, (500 * MS + number, until), goes_on);
                }
            }
        }
        verdicts(host)
    };
    let too_many = "what does not end are too many operations of too many ranks";
    for (groups, calls) in [(100, 1), (1, 5)] {
        let all = claims(groups, calls);
        assert!((1..=4).contains(&all.len()), "{all:#?}");
        assert!(all.iter().all(|finding| finding.evidence.contains(too_many)), "{all:#?}");
    }
}
