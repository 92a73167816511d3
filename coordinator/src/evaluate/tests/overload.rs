//! A shared node above its limit, as the audit tells of it.

use super::*;

#[tokio::test]
async fn an_overloaded_node_is_told_of_once_a_day_with_who_causes_it() {
    let desk = Desk::new().await;
    let (node, tenant) = (desk.world.source, desk.world.tenant);
    let noon = desk.world.now.as_second().div_euclid(86_400) * 86_400 + 43_200;
    let report = |gib: u64| {
        let mut sample = Sample::default();
        sample.set(Metric::MemoryBytes, gib << 30, false);
        let host = wire::HostSample { cpu_count: 16, ..wire::HostSample::default() };
        let report = wire::Report { host: Some(host), ..wire::Report::default() };
        desk.slots.book.apply(node, &report, &[(tenant, sample)], noon * 1_000_000, 1);
    };
    let client = desk.world.store.client().await.expect("a client");
    let told = async || {
        let id = node.to_string();
        let rows = crate::store::audit::list(&**client, Some("node"), Some(&id), None, 100);
        let rows = rows.await.expect("reads").into_iter();
        rows.filter(|row| row.action == "node.overloaded").collect::<Vec<_>>()
    };
    let look = async |minutes: i64| {
        let at = Timestamp::from_second(noon + minutes * 60).expect("a time");
        desk.evaluator.look_at_nodes(at).await.expect("looks")
    };
    report(50);
    assert_eq!(look(0).await, 0, "an ax52 has 128 GB");
    // More than four fifths of it.
    report(110);
    assert_eq!(look(5).await, 0, "one look is none yet");
    assert_eq!(look(7).await, 0, "too early for another");
    assert_eq!(look(10).await, 1);
    assert_eq!(look(15).await, 0, "told today");
    let [row] = &told().await[..] else { panic!("one is told") };
    assert_eq!(row.detail["dimension"], "memory");
    assert_eq!(row.detail["noisiest"], tenant.to_string());
    assert!(row.detail["noisiest_slug"].is_string(), "{}", row.detail);
    assert_eq!(row.detail["carries"], format!("{} MiB", 110 << 10));
    assert_eq!(row.detail["relief"], serde_json::json!([]));
    assert!(row.detail["advice"].as_str().is_some_and(|text| text.contains("one more")));
    assert_eq!(look(24 * 60).await, 1, "and once again tomorrow");
    assert_eq!(told().await.len(), 2);
}
