//! How long a tenant's points are kept, against its plan: hobby retains 30 days,
//! and the grace is 8.

use super::*;

#[tokio::test]
async fn points_that_wait_for_their_chunk_to_be_dropped_are_no_trouble() {
    let desk = Desk::new().await;
    desk.scan().await;
    let evaluated = desk.decisions().await.len();
    let client = desk.world.store.client().await.expect("a client");
    let tenant = desk.world.tenant.to_string();
    let told = async || {
        let rows = crate::store::audit::list(&**client, Some("tenant"), Some(&tenant), None, 100);
        let rows = rows.await.expect("reads").into_iter();
        let of_limits = rows.filter(|row| row.action.starts_with("limit."));
        of_limits.map(|row| (row.action, row.detail)).rev().collect::<Vec<_>>()
    };
    // The application tells when its oldest point is of.
    let look = async |days: u64| {
        let mut sample = Sample::default();
        let told = desk.world.now.as_second().unsigned_abs() - days * 86_400 - 60;
        sample.set(Metric::OldestPoint, told, false);
        let host = wire::HostSample { cpu_count: 16, ..wire::HostSample::default() };
        let report = wire::Report { host: Some(host), ..wire::Report::default() };
        let at = desk.world.now.as_microsecond();
        desk.slots.book.apply(desk.world.source, &report, &[(desk.world.tenant, sample)], at, 1);
        desk.scan().await;
    };
    for days in [24, 30, 37, 38] {
        look(days).await;
        assert_eq!(told().await, [], "{days} days");
    }
    assert_eq!(desk.decisions().await.len(), evaluated, "and nothing is evaluated for it");

    look(39).await;
    let [(action, detail)] = &told().await[..] else { panic!("one is told") };
    assert_eq!(action, "limit.crossed");
    let expected = serde_json::json!({
        "limit": "retention", "unit": "days", "used": 39, "allowed": 30, "crossed_above": 38,
    });
    assert_eq!(detail, &expected);
    assert_eq!(desk.decisions().await.len(), evaluated + 1);
    look(38).await;
    assert_eq!(told().await.len(), 1, "it has not ended yet");
    look(32).await;
    assert_eq!(told().await.last().map(|last| last.0.as_str()), Some("limit.cleared"));
}
