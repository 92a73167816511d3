//! A tenant's limits, and what is not measured of them.

use super::*;
use webhost_proto::wire;

#[tokio::test]
async fn what_is_not_measured_of_a_limit_is_not_zero() {
    let site = Site::new().await;
    let (node, tenant) = site.tenant().await;
    let of = |limits: &Value, name: &str| {
        let all = limits.as_array().expect("limits");
        all.iter().find(|one| one["limit"] == name).expect(name).clone()
    };
    let limits = site.get("/api/tenants/acme/limits").await;
    for name in ["retention", "queries_per_second", "users", "storage"] {
        let one = of(&limits, name);
        assert_eq!((&one["used"], &one["percent"]), (&Value::Null, &Value::Null), "{one}");
        assert_eq!(one["basis"], "not measured");
    }
    let vehicles = of(&limits, "vehicles");
    assert_eq!((&vehicles["used"], &vehicles["percent"]), (&json!(3), &json!(60)), "{vehicles}");
    assert_eq!(vehicles["basis"], "measured");

    // The application tells both: 9,000 queries in 5 s, and a point of a month
    // and some days ago.
    let mut told = report(2, &[(tenant, 0, 3)]);
    let oldest = jiff::Timestamp::now().as_second() - 33 * 86_400;
    for (metric, value) in
        [(wire::Metric::Queries, 9_000), (wire::Metric::OldestPoint, oldest.unsigned_abs())]
    {
        told.more_columns.push(wire::Column {
            metric: metric.into(),
            basis: wire::Basis::Measured.into(),
            values: vec![value],
            ..wire::Column::default()
        });
    }
    site.world.ingest.report(node, told).await.expect("applies");
    let limits = site.get("/api/tenants/acme/limits").await;
    let retention = of(&limits, "retention");
    assert_eq!((&retention["used"], &retention["allowed"]), (&json!(33), &json!(30)));
    assert_eq!(retention["percent"], 110);
    // A chunk of a week goes when its last point is old enough: nothing is wrong.
    assert_eq!((&retention["near_from"], &retention["crossed_above"]), (&Value::Null, &json!(38)));
    assert_eq!((&vehicles["near_from"], &vehicles["crossed_above"]), (&json!(4), &json!(5)));
    let queries = of(&limits, "queries_per_second");
    // Two reports of 5 s each.
    assert_eq!((&queries["used"], &queries["percent"]), (&json!(900), &json!(90)), "{queries}");
}
