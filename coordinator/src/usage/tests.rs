use jiff::Timestamp;
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire;

use super::hourly::{self, Hour};
use super::{metrics, rollup};
use crate::decide::plans::NodeKind;
use crate::link::{NodeEvents, Refusal};
use crate::world::{World, catalog, hello, report, small};

fn now_us() -> i64 {
    Timestamp::now().as_microsecond()
}

async fn fleet() -> (World, NodeId, TenantId) {
    let world = World::new(catalog(7)).await;
    let node = world.node("shared-1", NodeKind::Shared).await;
    let (tenant, _) = world.sign_up(small("acme")).await;
    (world, node, tenant)
}

const POINTS: &str = "select coalesce(sum(gps_points), 0)::bigint from usage_hourly";

#[tokio::test]
async fn a_reported_reservation_becomes_active_and_counts() {
    let (world, node, tenant) = fleet().await;
    let ack = world.ingest.report(node, report(1, &[(tenant, 500, 3)])).await.expect("applies");
    assert_eq!((ack.epoch, ack.sequence, ack.need_dictionary), (1, 1, false));
    assert_eq!(world.count("select count(*) from tenants where state = 'active'").await, 1);
    let usage = world.book.tenant(tenant, now_us()).expect("is known");
    assert_eq!((usage.gps_points_today, usage.vehicles), (500, Some(3)));
    assert_eq!(usage.gps_points_per_kilosecond, 100_000, "500 points in 5 s");
    assert_eq!(usage.mean_response_us, None, "no request is not fast");
    let node_usage = world.book.node(node, now_us()).expect("is known");
    assert_eq!((node_usage.cpu_millicores, node_usage.cpu_bp), (Some(1000), Some(5000)));
    let shown =
        metrics::usage_metrics(&usage, Some(&node_usage), None, None, &[Hour::default(); 24]);
    assert_eq!(shown.basis.get("vehicle_count"), Some(&"measured"));
    assert_eq!(shown.basis.get("error_rate"), None);
}

#[tokio::test]
async fn a_replayed_report_changes_nothing() {
    let (world, node, tenant) = fleet().await;
    for sequence in [1, 1, 2, 1, 2] {
        let ack = world
            .ingest
            .report(node, report(sequence, &[(tenant, 10, 3)]))
            .await
            .expect("acknowledges");
        assert_eq!(ack.sequence, sequence);
    }
    assert_eq!(world.count(POINTS).await, 20);
    assert_eq!(world.book.tenant(tenant, now_us()).expect("known").gps_points_today, 20);

    // The next coordinator on the same database knows it as well.
    let next = World::over(world.store.clone(), catalog(7));
    rollup::reload(&next.store, &next.book, Timestamp::now()).await.expect("reloads");
    let usage = next.book.tenant(tenant, now_us()).expect("is known after the restart");
    assert_eq!((usage.gps_points_today, usage.vehicles), (20, Some(3)));
    next.ingest.report(node, report(2, &[(tenant, 10, 3)])).await.expect("acknowledges");
    assert_eq!(next.count(POINTS).await, 20);
    // A new epoch begins to number from 1 again.
    let mut fresh = report(1, &[(tenant, 5, 3)]);
    fresh.epoch = 2;
    next.ingest.report(node, fresh).await.expect("applies");
    assert_eq!(next.count(POINTS).await, 25);
}

/// Days before yesterday come summed up; nothing but time is saved by that.
#[tokio::test]
async fn a_restart_knows_the_week_and_the_last_24_hours() {
    let world = World::new(catalog(7)).await;
    let (tenant, node) = (TenantId::generate(), NodeId::generate());
    let before = NodeId::generate();
    // From Tuesday 18:00 on: in hour h of the day h points, h clients on Thursday
    // and 2 h on the days before.
    world
        .execute(&format!(
            "insert into usage_hourly
               (tenant_id, node_id, hour, gps_points, vehicles, client_connections_max)
             select '{tenant}', case when at < '2026-11-19 05:00Z' then '{before}'::uuid
                                      else '{node}' end,
                    at, h, h, case when at < '2026-11-19Z' then 2 * h else h end
             from (select at, extract(hour from at at time zone 'UTC')::bigint as h
                   from generate_series('2026-11-10 18:00Z'::timestamptz, '2026-11-19 09:00Z',
                                        interval '1 hour') at) hours"
        ))
        .await;
    let now: Timestamp = "2026-11-19T09:30:00Z".parse().expect("a time");
    rollup::reload(&world.store, &world.book, now).await.expect("reloads");
    let usage = world.book.tenant(tenant, now.as_microsecond()).expect("is known");
    assert_eq!((usage.gps_points_today, usage.vehicles), (45, Some(9)));
    assert_eq!(usage.node, node, "it has moved at five");
    let day = (0..24).sum();
    assert_eq!((usage.week.gps_points, usage.week.vehicles, usage.week.clients), (day, 23, 46));
    assert_eq!(usage.peak_clients_24h, Some(46), "of Wednesday evening");
    assert_eq!(usage.history_days, 7, "what is older is not remembered");
    let friday = now.as_microsecond() + super::tenant::DAY_US;
    let then = world.book.tenant(tenant, friday).expect("is known");
    assert_eq!((then.gps_points_today, then.peak_clients_24h), (0, None));
    assert_eq!(then.week.gps_points, day);
}

/// The session ends between the commit and its answer; the repetition of its
/// report counts nowhere, so that the report itself must have.
#[tokio::test]
async fn a_report_whose_session_ends_is_in_todays_figures_all_the_same() {
    let (world, node, tenant) = fleet().await;
    {
        let report = world.ingest.report(node, report(1, &[(tenant, 10, 3)]));
        tokio::select! {
            biased;
            answered = report => panic!("the writer has not run yet: {answered:?}"),
            () = std::future::ready(()) => {}
        }
    }
    // Written after the report that nobody waits for.
    let other = world.node("shared-2", NodeKind::Shared).await;
    world.ingest.report(other, report(1, &[])).await.expect("applies");
    assert_eq!(world.count(POINTS).await, 10);
    world.ingest.report(node, report(1, &[(tenant, 10, 3)])).await.expect("acknowledges");
    assert_eq!(world.count(POINTS).await, 10);
    assert_eq!(world.book.tenant(tenant, now_us()).expect("known").gps_points_today, 10);
}

#[tokio::test]
async fn a_stranger_raises_one_alarm_and_gains_nothing() {
    let (world, node, tenant) = fleet().await;
    let other = world.node("shared-2", NodeKind::Shared).await;
    let stranger = TenantId::generate();
    for sequence in 1..4 {
        let tenants = [(tenant, 1, 1), (stranger, 100, 1)];
        world.ingest.report(node, report(sequence, &tenants)).await.expect("applies");
    }
    // A tenant that lives elsewhere is a stranger, too.
    world.ingest.report(other, report(1, &[(tenant, 1000, 1)])).await.expect("applies");
    let alarms = "select count(*) from audit where action = 'node.unexpected_tenant'";
    assert_eq!(world.count(alarms).await, 2);
    assert_eq!(world.count(POINTS).await, 3);
    assert!(world.book.tenant(stranger, now_us()).is_none());
    assert!(world.book.node(other, now_us()).is_some(), "the host's totals stand");

    let next = World::over(world.store.clone(), catalog(7));
    let again = report(9, &[(stranger, 1, 1)]);
    next.ingest.report(node, again).await.expect("applies");
    assert_eq!(next.count(alarms).await, 2, "a restart raises no second alarm");
}

#[tokio::test]
async fn only_the_active_side_of_a_move_counts() {
    let (world, node, tenant) = fleet().await;
    world.ingest.report(node, report(1, &[(tenant, 1, 1)])).await.expect("applies");
    let target = world.node("own-1", NodeKind::Dedicated).await;
    world
        .execute(&format!(
            "insert into placements (tenant_id, node_id, mode, state, epoch)
             values ('{tenant}', '{target}', 'single_tenant', 'incoming', 2)"
        ))
        .await;
    world.ingest.report(target, report(1, &[(tenant, 70, 1)])).await.expect("applies");
    assert_eq!(world.count(POINTS).await, 1);
    world
        .execute(
            "update placements set state = 'kept' where state = 'active';
             update placements set state = 'active' where state = 'incoming'",
        )
        .await;
    world.ingest.report(target, report(2, &[(tenant, 7, 1)])).await.expect("applies");
    world.ingest.report(node, report(2, &[(tenant, 70, 1)])).await.expect("applies");
    assert_eq!(world.count(POINTS).await, 8);
    let alarms = "select count(*) from audit where action = 'node.unexpected_tenant'";
    assert_eq!(world.count(alarms).await, 0, "both sides may speak of it");
    let usage = world.book.tenant(tenant, now_us()).expect("is known");
    assert_eq!(usage.node, target);
}

#[tokio::test]
async fn a_report_without_its_dictionary_is_not_acknowledged() {
    let (world, node, tenant) = fleet().await;
    world.ingest.report(node, report(1, &[(tenant, 1, 1)])).await.expect("applies");
    world.ingest.connected(node, &hello()).await.expect("connects again");
    let mut bare = report(2, &[(tenant, 1, 1)]);
    bare.dictionary = None;
    let ack = world.ingest.report(node, bare).await.expect("answers");
    assert_eq!((ack.sequence, ack.need_dictionary), (1, true));
    assert_eq!(world.count(POINTS).await, 1);
}

#[tokio::test]
async fn nonsense_is_refused_by_name() {
    let (world, node, tenant) = fleet().await;
    let mut uneven = report(1, &[(tenant, 1, 1)]);
    uneven.columns[0].values.push(2);
    let error = world.ingest.report(node, uneven).await.expect_err("refused");
    assert!(matches!(&error, Refusal::Invalid(why) if why.contains("GpsPoints")), "{error:?}");
    let mut long = report(1, &[(tenant, 1, 1)]);
    long.interval_ms = u32::MAX;
    assert!(matches!(world.ingest.report(node, long).await, Err(Refusal::Invalid(_))));
    assert_eq!(world.count(POINTS).await, 0);
    let stranger = NodeId::generate();
    let error = world.ingest.connected(stranger, &hello()).await.expect_err("refused");
    assert!(matches!(error, Refusal::Forbidden(_)), "{error:?}");
}

#[tokio::test]
async fn a_late_report_counts_in_its_own_hour_and_an_early_one_now() {
    let (world, node, tenant) = fleet().await;
    let mut late = report(1, &[(tenant, 100, 1)]);
    late.collected_at_us -= 2 * 3_600_000_000;
    world.ingest.report(node, late).await.expect("applies");
    let usage = world.book.tenant(tenant, now_us()).expect("is known");
    assert_eq!(usage.gps_points_per_kilosecond, 0, "not in the rates of now");
    let mut early = report(2, &[(tenant, 7, 1)]);
    early.collected_at_us += 2 * 3_600_000_000;
    world.ingest.report(node, early).await.expect("applies");
    let future = "select count(*) from usage_hourly where hour > now()";
    assert_eq!(world.count(future).await, 0);
    assert_eq!(world.count("select count(*) from usage_hourly").await, 2);
    let client = world.store.client().await.expect("a client");
    let hours = hourly::read(&**client, tenant, Timestamp::now()).await.expect("reads");
    let points: Vec<u64> =
        hours.iter().map(|hour| hour.gps_points).filter(|points| *points > 0).collect();
    assert_eq!(points, [100, 7], "each in its own hour, the older first");
    assert!(hours.windows(2).all(|pair| pair[0].index + 1 == pair[1].index));
}

#[test]
fn a_day_is_packed_by_the_hours_that_are_known() {
    use super::tenant::{HOUR_US, Tracked};
    use crate::fleet::need::{CONNECTIONS, CPU, GPS};
    let average = catalog(7).averages.amounts();
    let (node, tenant) = (NodeId::generate(), TenantId::generate());
    // Noon of day 100; the hours before it are each as busy as their number.
    let noon = 100 * 24 + 12;
    let day = |hours: i64| {
        let mut tracked = Tracked::new(node, 300_000_000);
        for back in 1..=hours {
            let of_day = Some(i32::try_from((12 - back).rem_euclid(24) + 1).expect("small"));
            tracked.teach(noon - back, &[vec![of_day], vec![Some(100)], vec![of_day]], false);
        }
        metrics::need(&tracked.usage(tenant, noon * HOUR_US), crate::fleet::Amounts::default())
    };
    let full = day(24);
    for hour in 0..24 {
        // Thousandths of a core, hundredths of a point a second.
        assert_eq!(usize::from(full.hourly[CPU][hour]), hour + 1, "hour {hour}");
        assert_eq!(usize::from(full.hourly[GPS][hour]), hour + 1, "hour {hour}");
        assert_eq!(full.hourly[CONNECTIONS][hour], 100, "hour {hour}");
    }
    let gap = day(23);
    assert_eq!(gap.hourly[CPU][12], 24, "the one hour that is not known: as busy as ever");
    assert_eq!(gap.hourly[CPU][11], 12);
    let none = Tracked::new(node, 300_000_000).usage(tenant, noon * HOUR_US);
    assert_eq!(metrics::need(&none, average), crate::fleet::Need::flat(&average));
    let mut blind = Tracked::new(node, 300_000_000);
    blind.teach(noon - 8 * 24, &[vec![None; 192], vec![None; 192], vec![Some(7); 192]], false);
    let blind = metrics::need(&blind.usage(tenant, noon * HOUR_US), average);
    let flat = crate::fleet::Need::flat(&average);
    assert_eq!(blind.hourly[CPU], flat.hourly[CPU], "whose CPU nobody sees is as its like");
    assert_eq!(blind.hourly[CONNECTIONS], flat.hourly[CONNECTIONS]);
    assert_eq!(blind.hourly[GPS], [7; 24]);
}

#[test]
fn a_new_tenant_is_charged_as_its_like_and_less_of_that_every_day() {
    use super::sample::{Metric, sample};
    use super::tenant::{HOUR_US, Tracked};
    use crate::fleet::need::{CONNECTIONS, CPU};
    use crate::fleet::{Amounts, MilliConnections};
    use webhost_proto::units::{Bytes, MilliCpu};
    let class = Amounts {
        cpu: MilliCpu(800),
        memory: Bytes(800 << 20),
        db_connections: MilliConnections(100),
        ..Amounts::default()
    };
    // From Monday on, each hour 100 thousandths of a core, 80 MiB, 4 connections.
    let monday = 20_773 * 24;
    let after = |hours: i64| {
        let mut tracked = Tracked::new(NodeId::generate(), 300_000_000);
        for minute in 0..hours * 60 {
            let at_us = monday * HOUR_US + minute * 60_000_000;
            if minute % 60 == 0 {
                tracked.teach(
                    monday + minute / 60,
                    &[vec![Some(100)], vec![Some(400)], vec![]],
                    false,
                );
            }
            let values = [
                (Metric::CpuUs, 6_000_000),
                (Metric::MemoryBytes, 80 << 20),
                (Metric::DbConnections, 4),
            ];
            let _ended = tracked.apply(0, tracked.node(), &sample(&values), at_us, 60_000_000);
        }
        let now_us = (monday + hours) * HOUR_US;
        metrics::need(&tracked.usage(TenantId::generate(), now_us), class)
    };
    for (days, cpu, memory) in [(1, 700, 697), (2, 600, 594), (6, 200, 182), (7, 100, 80)] {
        let need = after(days * 24);
        assert_eq!(need.hourly[CPU], [cpu; 24], "day {days}");
        assert_eq!(need.memory, memory, "day {days}");
        assert_eq!(need.hourly[CONNECTIONS], [400; 24], "more than its like: its own at once");
    }
}

#[tokio::test]
async fn what_is_told_by_the_minute_counts_for_who_lives_on_the_node() {
    let (world, node, tenant) = fleet().await;
    let stranger = TenantId(uuid::Uuid::new_v4());
    let told = |tenant: u32, requests: u64| wire::TenantMinute {
        tenant,
        countries: vec![wire::CountryRequests { country: "DE".into(), requests }],
        response: Some(wire::ResponseTimes { p50_us: 10, p95_us: 20, p99_us: 30 }),
        cache: Some(wire::CacheKeys { keys: 7, error: 2 }),
    };
    let check = wire::HealthCheck { name: "app".into(), state: 3, ..Default::default() };
    for (sequence, requests) in [(1, 40), (1, 40), (2, 2)] {
        let report = wire::Report {
            minutes: vec![told(1, 1_000), told(0, requests)],
            checks: Some(wire::HealthChecks { overall: 3, checks: vec![check.clone()] }),
            ..report(sequence, &[(tenant, 1, 1), (stranger, 1, 1)])
        };
        world.ingest.report(node, report).await.expect("acknowledges");
    }
    let shown = |of: TenantId, stated: Option<Vec<String>>| {
        let usage = world.book.tenant(tenant, now_us()).expect("is known");
        let mut shown = metrics::usage_metrics(&usage, None, stated, None, &[Hour::default(); 24]);
        world.book.show_minute(of, &mut shown, now_us());
        shown
    };
    let stated = Some(vec!["EU".to_owned()]);
    let own = shown(tenant, stated.clone());
    assert_eq!(own.geographic_distribution, Some(vec!["DE".to_owned()]));
    assert_eq!(own.basis.get("geographic_distribution"), Some(&"measured"));
    let requests = own.requests_by_country.expect("counted");
    assert_eq!(requests.get("DE"), Some(&42), "each report once");
    assert_eq!(own.response_times.map(|times| times.p95_us), Some(20));
    assert_eq!(own.cache_keys.map(|cache| (cache.keys, cache.error)), Some((7, 2)));
    let other = shown(stranger, stated.clone());
    assert_eq!(other.geographic_distribution, stated, "of a stranger nothing is kept");
    assert_eq!(other.basis.get("geographic_distribution"), Some(&"stated"));
    let health = world.book.node(node, now_us()).and_then(|usage| usage.health).expect("told");
    assert_eq!((health.overall, health.checks[0].name.as_str()), ("down", "app"));
}
