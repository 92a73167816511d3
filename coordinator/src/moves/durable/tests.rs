//! What was written once loads for ever.

use super::*;

/// What a coordinator before the way back wrote.
fn first() -> Durable {
    let id = "01900000-0000-7000-8000-000000000001".parse().expect("a uuid");
    let at = |text: &str| Some(text.parse().expect("a time"));
    let wanted = Wanted {
        mode: "single_tenant".into(),
        plan: "starter".into(),
        regions: vec!["iad".into()],
        node: Some(NodeId(id)),
        dry_run: false,
    };
    Durable {
        revision: 17,
        command: Some(CommandId(id)),
        attempts: 3,
        not_before: at("2026-11-21T22:00:00.25Z"),
        deadline: at("2026-11-22T22:00:00Z"),
        alarm_at: at("2026-11-21T22:10:00Z"),
        ticket: Some(Ticket([7; 32])),
        ticket_expires_at: at("2026-11-30T00:00:00Z"),
        target_tunnel: "10.0.0.2:7403".into(),
        target_place: "dedicated-1".into(),
        cut_over_sent: true,
        new_epoch: Some(Epoch(2)),
        stopped: Some(Stopped { by_person: true, why: "not today".into() }),
        ..Durable::new(wanted)
    }
}

/// Everything set.
fn full() -> Durable {
    let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
    let wish = |why: &str| Some(Wish { by: "token ops".into(), why: why.into() });
    let mut full = first();
    full.source_place = "shared-1".into();
    full.target_http = true;
    full.tenant_host = "acme.example.net".into();
    full.retain_from = Some(at("2026-10-22T00:00:00Z"));
    full.rows_left_behind = 12;
    full.confirmed_rows = 12;
    full.pause = wish("a launch");
    full.resume_at = Some(Step::Drain);
    full.way_back_s = 86_400;
    full.way_back_until = Some(at("2026-11-23T00:00:00Z"));
    full.close_way_back = wish("it is good");
    full.roll_back = wish("it is slow");
    full.back_epoch = Some(Epoch(3));
    full.rolled_back = true;
    full.keep_until = Some(at("2026-11-30T00:00:00Z"));
    full.abandoned = true;
    full.forgotten = Some(Forgotten { by: "operator".into(), at: at("2026-12-01T00:00:00Z") });
    full.asked_target = true;
    full.pause_sent = true;
    full.began_at = Some(at("2026-11-21T21:00:00Z"));
    full.slow_told = true;
    full.health_before = Some(Health { mean_response_us: Some(9000), error_rate_bp: Some(3) });
    full.unhealthy_since = Some(at("2026-11-22T01:00:00Z"));
    full.pass(State::Step(Step::Copy), at("2026-11-21T21:00:00Z"), at("2026-11-21T21:30:00Z"));
    full
}

/// Bytes that a coordinator wrote once must load for ever: a change that
/// breaks this test breaks moves that are under way during an upgrade.
const FROZEN_FIRST: &str = r#"{"revision":17,"wanted":{"mode":"single_tenant","plan":"starter","regions":["iad"],"node":"01900000-0000-7000-8000-000000000001"},"command":"01900000-0000-7000-8000-000000000001","attempts":3,"not_before":"2026-11-21T22:00:00.25Z","deadline":"2026-11-22T22:00:00Z","alarm_at":"2026-11-21T22:10:00Z","ticket":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc","ticket_expires_at":"2026-11-30T00:00:00Z","target_tunnel":"10.0.0.2:7403","target_place":"dedicated-1","cut_over_sent":true,"new_epoch":2,"stopped":{"by_person":true,"why":"not today"}}"#;

/// The same with everything that the way back brought.
const FROZEN: &str = r#"{"revision":17,"wanted":{"mode":"single_tenant","plan":"starter","regions":["iad"],"node":"01900000-0000-7000-8000-000000000001","dry_run":false},"command":"01900000-0000-7000-8000-000000000001","attempts":3,"not_before":"2026-11-21T22:00:00.25Z","deadline":"2026-11-22T22:00:00Z","alarm_at":"2026-11-21T22:10:00Z","ticket":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc","ticket_expires_at":"2026-11-30T00:00:00Z","target_tunnel":"10.0.0.2:7403","target_place":"dedicated-1","source_place":"shared-1","target_http":true,"tenant_host":"acme.example.net","cut_over_sent":true,"new_epoch":2,"stopped":{"by_person":true,"why":"not today"},"retain_from":"2026-10-22T00:00:00Z","rows_left_behind":12,"confirmed_rows":12,"pause":{"by":"token ops","why":"a launch"},"resume_at":"drain","way_back_s":86400,"way_back_until":"2026-11-23T00:00:00Z","close_way_back":{"by":"token ops","why":"it is good"},"roll_back":{"by":"token ops","why":"it is slow"},"back_epoch":3,"rolled_back":true,"keep_until":"2026-11-30T00:00:00Z","abandoned":true,"forgotten":{"by":"operator","at":"2026-12-01T00:00:00Z"},"asked_target":true,"pause_sent":true,"began_at":"2026-11-21T21:00:00Z","slow_told":true,"health_before":{"mean_response_us":9000,"error_rate_bp":3},"unhealthy_since":"2026-11-22T01:00:00Z","passed":[{"state":"copy","began":"2026-11-21T21:00:00Z","ended":"2026-11-21T21:30:00Z","tries":3}]}"#;

/// The least that was ever written.
const FROZEN_LEAST: &str = r#"{"revision":0,"wanted":{"mode":"single_tenant","plan":"starter"}}"#;

#[test]
fn frozen_bytes_load() {
    assert_eq!(serde_json::from_str::<Durable>(FROZEN_FIRST).expect("loads"), first());
    assert_eq!(serde_json::from_str::<Durable>(FROZEN).expect("loads"), full());
    assert_eq!(serde_json::to_string(&full()).expect("writes"), FROZEN);
    let least: Durable = serde_json::from_str(FROZEN_LEAST).expect("loads");
    let wanted = Wanted {
        mode: "single_tenant".into(),
        plan: "starter".into(),
        regions: vec![],
        node: None,
        dry_run: false,
    };
    assert_eq!(least, Durable::new(wanted));
}

#[test]
fn the_history_of_timings_has_a_bound() {
    let mut durable = first();
    for _ in 0..3 * MOST_PASSED {
        durable.pass(State::Step(Step::WayBack), Timestamp::MIN, Timestamp::MAX);
    }
    assert_eq!(durable.passed.len(), MOST_PASSED);
}

#[test]
fn a_ticket_tells_nothing_in_logs_and_only_its_hash_to_the_target() {
    let ticket = Ticket::generate();
    assert_ne!(ticket, Ticket::generate());
    assert_eq!(ticket.to_wire().len(), 32);
    assert_eq!(ticket.sha256().len(), 32);
    assert_ne!(ticket.to_wire(), ticket.sha256());
    assert_eq!(format!("{:?}", Some(&ticket)), "Some(Ticket(…))");
}
