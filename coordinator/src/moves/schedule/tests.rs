use proptest::prelude::*;

use super::*;

/// A Monday.
const NOON: &str = "2026-11-16T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn minutes(minutes: i64) -> Timestamp {
    at(NOON) + SignedDuration::from_mins(minutes)
}

const LIMITS: Limits = Limits { per_source: 1, per_target: 1, in_fleet: 2 };

fn job(source: NodeId, target: Option<NodeId>, takes_min: i64) -> Job {
    Job {
        tenant: TenantId::generate(),
        source,
        target,
        takes: SignedDuration::from_mins(takes_min),
        at_any_time: false,
        not_before: None,
    }
}

fn table(running: &[Running], calendar: &Calendar, limits: Limits) -> Timetable {
    Timetable { calendar: calendar.clone(), running: running.to_vec(), limits }
}

fn opens(calendar: &mut Calendar, job: &Job, window: &str) {
    let window = window.parse().expect("a window");
    calendar.tenants.entry(job.tenant).or_default().push(window);
}

#[test]
fn a_pace_counts_the_copy_and_what_is_beside_it() {
    let pace = Pace { bytes_per_second: 1000, beside_s: 60 };
    assert_eq!(pace.of(0), SignedDuration::from_secs(60));
    assert_eq!(pace.of(1), SignedDuration::from_secs(61));
    assert_eq!(pace.of(5000), SignedDuration::from_secs(65));
    assert_eq!(pace.of(u64::MAX), HORIZON);
}

#[test]
fn moves_of_one_node_come_one_after_the_other() {
    let (a, b, c) = (NodeId::generate(), NodeId::generate(), NodeId::generate());
    let jobs = [job(a, Some(b), 10), job(a, Some(c), 20), job(c, Some(b), 5)];
    let order = [0, 1, 2];
    let times = table(&[], &Calendar::default(), LIMITS).schedule(&jobs, &order, at(NOON));
    let found: Vec<_> = times.iter().map(|one| (one.begins, one.ends)).collect();
    // The second waits for its source, the third for its target.
    assert_eq!(found[0], (Some(minutes(0)), Some(minutes(10))));
    assert_eq!(found[1], (Some(minutes(10)), Some(minutes(30))));
    assert_eq!(found[2], (Some(minutes(10)), Some(minutes(15))));
    // What is under way already counts.
    let busy = Busy { source: a, target: None };
    let running = [Running { busy, ends: minutes(7) }];
    let times = table(&running, &Calendar::default(), LIMITS).schedule(&jobs, &order, at(NOON));
    assert_eq!(times[0].begins, Some(minutes(7)));
}

#[test]
fn windows_are_waited_for_and_keep_nobody_else() {
    let (a, b) = (NodeId::generate(), NodeId::generate());
    let mut calendar = Calendar::default();
    let jobs = [job(a, Some(b), 30), job(a, Some(b), 10), job(a, Some(b), 10)];
    opens(&mut calendar, &jobs[0], "daily 13:00-14:00");
    opens(&mut calendar, &jobs[2], "daily 01:00-02:00");
    calendar.nodes.insert(a, vec!["daily 12:00-20:00".parse().expect("a window")]);
    let times = table(&[], &calendar, LIMITS).schedule(&jobs, &[0, 1, 2], at(NOON));
    assert_eq!(times[0].window, Some(minutes(60)));
    assert_eq!((times[0].begins, times[0].ends), (Some(minutes(60)), Some(minutes(90))));
    assert_eq!((times[1].begins, times[1].ends), (Some(minutes(0)), Some(minutes(10))));
    // Its window and its node's are never open at once.
    assert_eq!(times[2], Times::default());
    assert!(times[2].is_late(minutes(1_000_000)));
    let outside = [Job { at_any_time: true, ..jobs[2] }];
    let times = table(&[], &calendar, LIMITS).schedule(&outside, &[0], at(NOON));
    assert_eq!(times[0].begins, Some(minutes(0)));
}

#[test]
fn the_order_is_the_one_that_meets_the_deadline() {
    let (a, b) = (NodeId::generate(), NodeId::generate());
    let mut calendar = Calendar::default();
    // As they are, the long one is under way when the short one's window closes.
    let jobs = [job(a, Some(b), 120), job(a, Some(b), 10)];
    opens(&mut calendar, &jobs[1], "mon 12:00-13:00");
    let by = minutes(150);
    let plain = table(&[], &calendar, LIMITS).schedule(&jobs, &[0, 1], at(NOON));
    assert!(plain[1].is_late(by));
    let (order, times) = ordered(&jobs, 0..2, &table(&[], &calendar, LIMITS), Some(by), at(NOON));
    assert_eq!(order, [1, 0]);
    assert_eq!(times[0].ends, Some(minutes(130)));
    assert!(!times.iter().any(|one| one.is_late(by)));
    // Without a deadline the plan's own order holds.
    let (order, _) = ordered(&jobs, 0..2, &table(&[], &calendar, LIMITS), None, at(NOON));
    assert_eq!(order, [0, 1]);
    // What can't be met is late, and only that.
    let (_, times) =
        ordered(&jobs, 0..2, &table(&[], &calendar, LIMITS), Some(minutes(60)), at(NOON));
    assert!(times[0].is_late(minutes(60)) && !times[1].is_late(minutes(60)));
}

proptest! {
    /// No limit is ever passed, no closed window begun in, and every job that
    /// has a window begins.
    #[test]
    fn a_schedule_keeps_to_limits_and_windows(
        shapes in prop::collection::vec((0_usize..3, 0_usize..4, 1_i64..200, 0_usize..3), 1..25),
        per_source in 1_u32..3, per_target in 1_u32..3, in_fleet in 1_u32..5,
    ) {
        let nodes: Vec<NodeId> = (0..4).map(|_| NodeId::generate()).collect();
        let limits = Limits { per_source, per_target, in_fleet };
        let mut calendar = Calendar::default();
        calendar.nodes.insert(nodes[1], vec!["daily 10:00-18:00".parse().expect("a window")]);
        let mut jobs = Vec::new();
        for (source, target, takes, window) in shapes {
            let target = (target < 3).then(|| nodes[target + 1]);
            let one = job(nodes[source], target, takes);
            match window {
                1 => opens(&mut calendar, &one, "mon-fri 16:00-17:30"),
                2 => opens(&mut calendar, &one, "tue 09:00-11:00 +01:00"),
                _ => {}
            }
            jobs.push(one);
        }
        let order: Vec<usize> = (0..jobs.len()).collect();
        let now = at(NOON);
        let times = table(&[], &calendar, limits).schedule(&jobs, &order, now);
        let under_way = |at: Timestamp| -> Vec<Busy> {
            jobs.iter().zip(&times)
                .filter(|(_, one)| {
                    one.begins.is_some_and(|begins| begins <= at) && one.ends.is_some_and(|e| e > at)
                })
                .map(|(job, _)| Busy { source: job.source, target: job.target })
                .collect()
        };
        for (job, one) in jobs.iter().zip(&times) {
            prop_assert_eq!(one.window.is_some(), one.begins.is_some());
            let Some(begins) = one.begins else { continue };
            prop_assert!(calendar.is_open(job, begins));
            prop_assert_eq!(one.ends, Some(begins + job.takes));
            let busy = under_way(begins);
            prop_assert!(busy.len() <= in_fleet as usize);
            let from = busy.iter().filter(|b| b.source == job.source).count();
            let to = busy.iter().filter(|b| b.target.is_some() && b.target == job.target).count();
            prop_assert!(from <= per_source as usize && to <= per_target as usize);
        }
    }
}
