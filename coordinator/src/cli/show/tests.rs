use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::moves::view::StepView;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn view() -> MoveView {
    let began = at("2026-11-21T22:00:00Z");
    let step = |state: &str, milliseconds, ended, tries| StepView {
        state: state.into(),
        began,
        ended,
        seconds: milliseconds / 1000,
        milliseconds,
        tries,
    };
    MoveView {
        id: Uuid::nil(),
        tenant_id: Uuid::max(),
        kind: "upgrade".into(),
        state: "copy".into(),
        source_node_id: Uuid::nil(),
        target_node_id: Some(Uuid::max()),
        target_mode: "single_tenant".into(),
        target_plan: "starter".into(),
        decision_id: None,
        reason: "it has outgrown its server".into(),
        requested_by: "system".into(),
        approved_by: Some("token ops".into()),
        approved_at: Some(began),
        epoch: 1,
        attempts: 2,
        progress: json!({ "step": "copy", "table": "gps_positions", "rows_done": 250_000,
            "rows_total": 1_000_000, "bytes_done": 31_000_000, "rows_per_second": 5000 }),
        result: json!({}),
        error: Some("the agent is stopping".into()),
        created_at: began,
        updated_at: began,
        ended_at: None,
        duration_ms: 130_000,
        dry_run: false,
        percent: Some(25),
        seconds_left: Some(150),
        retain_from: None,
        rows_left_behind: 0,
        deadline: Some(at("2026-11-22T22:00:00Z")),
        way_back_until: None,
        keep_until: None,
        pausing: None,
        steps: vec![step("guard", 1250, Some(began), 1), step("copy", 125_000, None, 2)],
        events: Vec::new(),
    }
}

#[test]
fn a_screen_says_where_it_is_what_it_means_and_what_can_be_done() {
    let screen = screen(&view());
    for part in [
        "copy, since 2026-11-21T22:00:00Z",
        "the agent is stopping",
        "250000 of about 1000000 rows, 31 MB, 5000 rows/s, about 2 min 30 s left, in gps_positions",
        "25 % of the way to the switch",
        "guard                         1.2 s      1",
        "copy                    2 min 05 s…      2",
        "What a person can do",
        "move pause",
    ] {
        assert!(screen.contains(part), "{part:?} is not in\n{screen}");
    }
}

#[test]
fn a_report_names_every_table_and_what_is_in_the_way() {
    let mut view = view();
    view.result = json!({ "preflight": {
        "tables": [{ "table": "devices", "verdict": "move", "reason": "by customer_id",
                     "rows_estimated": 12 }],
        "warnings": ["the plan has few connections"],
        "rows_estimated": 12, "bytes_estimated": 3_000_000,
    }});
    view.state = "checked".into();
    view.retain_from = Some(at("2026-10-22T00:00:00Z"));
    view.rows_left_behind = 7;
    let text = report(&view);
    for part in [
        "move       devices",
        "by customer_id",
        "warning: the plan has few connections",
        "about 12 rows, 3 MB",
        "7 rows from before 2026-10-22T00:00:00Z stay behind",
        "passes",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    view.result["preflight"]["findings"] = json!([{ "level": "problem", "topic": "tables",
        "text": "notes has no primary key", "way_out": "add one" }]);
    let text = report(&view);
    assert!(text.contains("problem    tables         notes has no primary key"), "{text}");
    assert!(text.contains("what to do: add one"), "{text}");
    view.state = "failed".into();
    view.result = json!({});
    view.error = Some("table notes has no primary key".into());
    assert!(report(&view).ends_with("refused: table notes has no primary key"));
}
