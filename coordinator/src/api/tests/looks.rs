//! Usage over time, limits, rules and accuracy over HTTP.

use jiff::Timestamp;

use super::*;
use crate::store::history::{self, Grain, Stretch};
use crate::usage::series;

#[tokio::test]
async fn a_chart_shows_the_running_hour_and_refuses_what_it_does_not_know() {
    let site = Site::new().await;
    let (_, tenant) = site.tenant().await;
    let chart = site.get(&format!("/api/tenants/{tenant}/usage/chart?metric=gps_points")).await;
    assert_eq!((&chart["step_s"], &chart["unit"]), (&json!(60), &json!("points")));
    let values = chart["values"].as_array().expect("values");
    let known: Vec<&Value> = values.iter().filter(|value| !value.is_null()).collect();
    assert_eq!(known, [&json!(500)], "one report of 500 points, nothing before it");
    for (query, field) in [
        ("metric=mood", "metric"),
        ("metric=cpu&from=yesterday", "from"),
        ("metric=cpu&to=later", "to"),
        ("metric=cpu&from=2020-01-01T00:00:00Z", "from"),
        ("metric=cpu&from=2999-01-01T00:00:00Z", "from"),
    ] {
        let path = format!("/api/tenants/{tenant}/usage/chart?{query}");
        let (status, body) = site.admin(Method::GET, &path, Value::Null).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{query}: {body}");
        assert_eq!(body["error"]["field"], field, "{query}: {body}");
    }
}

#[tokio::test]
async fn rules_are_set_shown_and_audited() {
    let site = Site::new().await;
    let (node, tenant) = site.tenant().await;
    let path = format!("/api/tenants/{tenant}/rules");
    let none = json!({ "pinned": null, "near": [], "only": [], "apart": [] });
    assert_eq!(site.get(&path).await, none);
    let wish = json!({ "pinned": "shared-1", "only": ["US", "iad"], "apart": ["b", "a", "b"] });
    let (status, set) = site.admin(Method::PUT, &path, wish).await;
    assert_eq!(status, StatusCode::OK, "{set}");
    let expected = json!({
        "pinned": node.to_string(), "near": [], "only": ["iad"], "apart": ["a", "b"],
    });
    assert_eq!((&set, &site.get(&path).await), (&expected, &expected));
    for (wish, field) in [
        (json!({ "pinned": "nowhere" }), "pinned"),
        (json!({ "near": ["Atlantis"] }), "near"),
        (json!({ "apart": ["Not a label"] }), "apart"),
    ] {
        let (status, body) = site.admin(Method::PUT, &path, wish).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(body["error"]["field"], field);
    }
    assert_eq!(site.get(&path).await, expected, "what is refused changes nothing");
    let (status, _) = site.admin(Method::PUT, &path, json!({})).await;
    assert_eq!((status, site.get(&path).await), (StatusCode::OK, none));
    let set = "select count(*) from audit where action = 'tenant.rules_set'";
    assert_eq!(site.world.count(set).await, 2);
}

/// It bought hobby and was moved to a machine of its own, of starter's shape.
#[tokio::test]
async fn advice_starts_from_the_plan_that_a_tenant_is_served_by() {
    let site = Site::new().await;
    let (node, tenant) = site.tenant().await;
    site.world
        .execute(&format!(
            "update placements set mode = 'single_tenant';
             insert into moves (id, tenant_id, kind, source_node_id, reason, requested_by, state,
                                epoch, durable, ended_at)
             values (gen_random_uuid(), '{tenant}', 'upgrade', '{node}', 'why', 'who', 'completed',
                     1, '{{\"new_epoch\": 2, \"wanted\": {{\"plan\": \"starter\"}}}}', now())"
        ))
        .await;
    let many = report(2, &[(tenant, 500, 5000)]);
    site.world.ingest.report(node, many).await.expect("applies");
    let usage = site.get(&format!("/api/tenants/{tenant}/usage")).await;
    assert_eq!(usage["recommendations"][0]["from"], "starter", "{usage}");
}

#[tokio::test]
async fn limits_and_accuracy_are_shown() {
    let site = Site::new().await;
    let (_, tenant) = site.tenant().await;
    assert_eq!(site.get("/api/limits").await, json!([]));
    site.world
        .execute(&format!(
            "insert into limits (tenant_id, name, level, used, allowed, since)
             values ('{tenant}', 'vehicles', 'breach', 6, 5, now()),
                    ('{tenant}', 'users', 'clear', 1, 50, now()),
                    ('{tenant}', 'storage', 'warning', 5000, 6000, now())"
        ))
        .await;
    let limits = site.get("/api/limits").await;
    let shown: Vec<_> = limits
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| (one["limit"].as_str(), one["level"].as_str(), one["used"].as_u64()))
        .collect();
    assert_eq!(
        shown,
        [
            (Some("vehicles"), Some("breach"), Some(6)),
            (Some("storage"), Some("warning"), Some(5000)),
        ]
    );
    let accuracy = site.get("/api/decisions/accuracy?days=1").await;
    assert_eq!((&accuracy["stays"], &accuracy["stayed_percent"]), (&json!(0), &Value::Null));
    let (status, body) =
        site.admin(Method::GET, "/api/decisions/accuracy?days=0", Value::Null).await;
    assert_eq!(
        (status, &body["error"]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("days"))
    );
}

#[tokio::test]
async fn the_forecast_is_of_the_same_weekday_of_five_weeks() {
    let site = Site::new().await;
    let (node, tenant) = site.tenant().await;
    let found = site.get("/api/forecast").await;
    assert_eq!(found["nodes"][0]["node"], node.to_string());
    assert_eq!(found["places"][0]["place"], "iad");
    assert_eq!(found["places"][0]["reaches"][1]["grows_milli"], Value::Null);
    let mut client = site.world.store.client().await.expect("a client");
    let tx = (**client).transaction().await.expect("begins");
    let last: Timestamp = "2026-11-16T00:00:00Z".parse().expect("a time");
    // Each day 100 MiB more; the last day is the last that is known.
    let row = |back: i32| Stretch {
        tenant,
        at: last - jiff::SignedDuration::from_hours(i64::from(back) * 24),
        values: std::array::from_fn(|column| match series::ALL[column].name {
            "memory" => vec![Some(1), Some(10_000 - back * 100), None],
            _ => vec![None; 24],
        }),
        percentiles: Some(std::array::from_fn(|_| vec![None; 24])),
    };
    let rows: Vec<Stretch> = (0..=28).map(row).collect();
    history::prepare(&tx, Grain::Hours, rows.iter().map(|row| row.at)).await.expect("prepares");
    history::copy(&tx, Grain::Hours, &rows).await.expect("copies");
    history::day_is_made(&tx, last).await.expect("notes the day");
    tx.commit().await.expect("commits");
    let found = site.get("/api/forecast").await;
    for of in [&found["nodes"][0], &found["places"][0]] {
        let memory = &of["reaches"][1];
        assert_eq!(
            (&memory["dimension"], &memory["grows_milli"]),
            (&json!("memory"), &json!(100_000))
        );
        let [now, limit, days] =
            ["now", "limit", "days"].map(|name| memory[name].as_u64().expect("a number"));
        assert!(days * 100 + now > limit && (days - 1) * 100 + now <= limit, "{memory}");
    }
}
