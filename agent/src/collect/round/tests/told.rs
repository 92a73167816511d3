//! What is told beside the columns.

use super::*;
use crate::collect::checks::{Checked, State};

#[test]
fn health_checks_are_told_when_they_were_made_anew() {
    let mut node = Node::new(false);
    let check = |failures: u32, message: &str| Checked {
        name: "database".into(),
        state: if failures > 2 { State::Down } else { State::Healthy },
        took_us: 5,
        failures,
        message: message.into(),
    };
    let mut told = Vec::new();
    for (round, checked) in [
        (1, check(0, "")),
        (1, check(0, "")),
        (2, check(3, "no answer\u{1b}[2J")),
        (2, check(3, "no answer\u{1b}[2J")),
    ] {
        let reading = ChecksReading { round, overall: checked.state, checks: vec![checked] };
        let (number, now) = (node.round + 1, node.now);
        set(&mut node.checks, number, now, reading);
        told.push(node.assemble().report.checks);
    }
    assert_eq!((&told[1], &told[3]), (&None, &None), "between two rounds of checks");
    let first = told[0].as_ref().expect("told");
    assert_eq!(first.overall(), wire::HealthState::Healthy);
    let down = told[2].as_ref().expect("told");
    assert_eq!(down.overall(), wire::HealthState::Down);
    assert_eq!(down.checks[0].state(), wire::HealthState::Down);
    assert_eq!((down.checks[0].name.as_str(), down.checks[0].failures), ("database", 3));
    assert_eq!(down.checks[0].message, "no answer [2J", "nothing that a terminal obeys");
}

#[test]
fn before_the_database_has_said_who_lives_here_no_request_is_passed_over() {
    let mut node = Node::new(true);
    let logged = |requests: u64| {
        let countries = [("DE".to_owned(), requests)].into();
        let told = AccessTenant { countries, ..AccessTenant::default() };
        AccessReading { tenants: [(tenant(1), told)].into(), unknown: 0 }
    };
    let (round, now) = (node.round + 1, node.now);
    set(&mut node.access, round, now, logged(3));
    assert!(node.assemble().report.minutes.is_empty());
    let (round, now) = (node.round + 1, node.now);
    set(&mut node.access, round, now, logged(4));
    let minutes = node.postgres(&[1], &[]).assemble().report.minutes;
    let told: Vec<_> = minutes.iter().map(|(id, told)| (*id, told.countries[0].requests)).collect();
    assert_eq!(told, [(tenant(1), 4)]);
}
