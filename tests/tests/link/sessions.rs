//! Sessions and reports.

use std::time::Duration;

use webhost_agent::command::Registry;
use webhost_agent::link::LinkState;
use webhost_agent::link::report::CollectedColumn;
use webhost_coordinator::link::authority::Leaves;
use webhost_coordinator::store::node_link;
use webhost_proto::ids::TenantId;
use webhost_proto::wire::{Basis, Metric, SourceHealth, SourceState};

use crate::hostile::RawAgent;
use crate::world::{World, settings};

#[tokio::test]
async fn an_enrolled_agent_connects_and_its_reports_are_acknowledged() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut agent = machine.agent(&world.link, Registry::default());
    agent.connected().await;
    for calls in 1..=20 {
        agent.report(calls).await;
    }
    world.hears(|heard| heard.calls.get(&machine.node()) == Some(&210)).await;
    let status = agent.is(|status| status.spooled == 0).await;
    assert!(status.last_ack_us.is_some());
    let orders = agent.handles.orders.borrow().clone();
    assert_eq!(orders.report_interval_ms, Some(settings().report_interval_ms));
    assert_eq!(orders.expected, [(TenantId(uuid::Uuid::from_u128(1)), "one".into())]);
}

#[tokio::test]
async fn what_is_reported_while_the_coordinator_is_away_arrives_once() {
    let mut world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut agent = machine.agent(&world.link, Registry::default());
    agent.connected().await;
    agent.report(1).await;
    world.hears(|heard| heard.calls.get(&machine.node()) == Some(&1)).await;
    world.stop().await;
    agent.is(|status| status.state != LinkState::Connected).await;
    for calls in [10, 100, 1_000] {
        agent.report(calls).await;
    }
    world.serve().await;
    world.hears(|heard| heard.calls.get(&machine.node()) == Some(&1_111)).await;
    agent.is(|status| status.spooled == 0).await;
    agent.stop().await;

    // A new run of the agent numbers anew, under a greater epoch.
    let agent = machine.agent(&world.link, Registry::default());
    agent.report(10_000).await;
    world.hears(|heard| heard.calls.get(&machine.node()) == Some(&11_111)).await;
}

#[tokio::test]
async fn what_an_agent_leaves_behind_its_next_run_sends_once() {
    let mut world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut agent = machine.agent(&world.link, Registry::default());
    agent.connected().await;
    agent.report(1).await;
    world.hears(|heard| heard.calls.get(&machine.node()) == Some(&1)).await;
    world.stop().await;
    agent.is(|status| status.state != LinkState::Connected).await;
    for calls in [10, 100] {
        agent.report(calls).await;
    }
    agent.is(|status| status.spooled >= 2).await;
    agent.stop().await;

    let mut agent = machine.agent(&world.link, Registry::default());
    agent.report(1_000).await;
    let status = agent.is(|status| status.spooled >= 3).await;
    assert!(status.spool_bytes > 0 && status.spool_oldest_us.is_some());
    assert_eq!(status.spool_problem, None);
    world.serve().await;
    world.hears(|heard| heard.calls.get(&machine.node()) == Some(&1_111)).await;
    agent.is(|status| status.spooled == 0).await;
    assert_eq!(world.heard.borrow().calls[&machine.node()], 1_111);
}

#[tokio::test]
async fn a_revoked_node_is_cut_off_and_stays_out() {
    let world = World::start().await;
    let (bad, good) = (world.machine("fsn-1").await, world.machine("fsn-2").await);
    let mut agent = bad.agent(&world.link, Registry::default());
    let mut other = good.agent(&world.link, Registry::default());
    agent.connected().await;
    other.connected().await;
    let client = world.store.client().await.expect("a client");
    assert!(node_link::revoke(&**client, bad.node()).await.expect("revokes"));
    let status = agent.is(|status| status.state == LinkState::Waiting).await;
    assert!(status.last_error.is_some_and(|error| error.contains("revoked")));
    world.hears(|heard| heard.disconnected.contains_key(&bad.node())).await;

    let mut again = bad.agent(&world.link, Registry::default());
    let status = again.is(|status| status.last_error.is_some()).await;
    assert!(status.last_error.is_some_and(|error| error.contains("revoked")));
    assert_eq!(world.heard.borrow().connected[&bad.node()], 1);
    assert_eq!(other.handles.status.borrow().state, LinkState::Connected);
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_void_at_once() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut old = machine.agent(&world.link, Registry::default());
    old.connected().await;
    let renewed = world.machine("fsn-1").await;
    assert_eq!(renewed.node(), machine.node());
    let status = old.is(|status| status.state == LinkState::Waiting).await;
    assert!(status.last_error.is_some_and(|error| error.contains("enrolled again")));
    let mut new = renewed.agent(&world.link, Registry::default());
    new.connected().await;
}

#[tokio::test]
async fn the_newest_session_of_a_node_wins() {
    let world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut first = machine.agent(&world.link, Registry::default());
    first.connected().await;
    let mut second = machine.agent(&world.link, Registry::default());
    second.connected().await;
    let status = first.is(|status| status.state == LinkState::Waiting).await;
    assert!(status.last_error.is_some_and(|error| error.contains("another session")));
    second.report(5).await;
    let heard = world.hears(|heard| heard.calls.get(&machine.node()) == Some(&5)).await;
    assert_eq!(heard.connected[&machine.node()], 2);
    assert!(heard.disconnected.is_empty(), "the node never was gone");
}

#[tokio::test]
async fn a_session_ends_when_the_certificate_expires_and_none_begins_after() {
    let brief = Leaves { lifetime: Duration::from_secs(8) };
    let world = World::with(settings(), brief).await;
    let machine = world.machine("fsn-1").await;
    let mut agent = machine.agent(&world.link, Registry::default());
    agent.connected().await;
    world.hears(|heard| heard.disconnected.contains_key(&machine.node())).await;
    let mut again = machine.agent(&world.link, Registry::default());
    again.is(|status| status.last_error.is_some()).await;
    assert_eq!(world.heard.borrow().connected[&machine.node()], 1);
}

#[tokio::test]
async fn a_coordinator_that_goes_says_goodbye() {
    let mut world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut raw = RawAgent::greeted(&world, &machine).await;
    world.stop().await;
    assert!(raw.last_words().await.contains("shutting down"));
}

#[tokio::test]
async fn what_is_left_out_on_the_way_is_there_at_the_other_end() {
    let mut world = World::start().await;
    let machine = world.machine("fsn-1").await;
    let mut agent = machine.agent(&world.link, Registry::default());
    agent.connected().await;
    let ok = SourceHealth {
        source: "host".into(),
        state: SourceState::Ok.into(),
        message: String::new(),
    };
    let mut sent = 0;
    for round in 0..2 {
        for (vehicles, memory) in [(7, 5_000_000_000), (7, 5_000_000_001), (6, 4_000_000_000)] {
            let mut report = crate::world::report(0);
            let gauge = |metric, value| CollectedColumn {
                metric,
                basis: Basis::Measured,
                bound: 0,
                values: vec![Some(value)],
            };
            report.columns.push(gauge(Metric::Vehicles, vehicles));
            report.columns.push(gauge(Metric::MemoryBytes, memory));
            report.sources = vec![ok.clone()];
            agent.handles.reports.send(report).await.expect("the link lives");
            sent += 1;
            let heard = world.hears(|heard| heard.reports == sent).await;
            let heard = heard.last.expect("a report");
            let values: Vec<&[u64]> =
                heard.columns.iter().map(|column| column.values.as_slice()).collect();
            assert_eq!(values, [&[0][..], &[vehicles], &[memory]], "in round {round}");
            assert_eq!(heard.sources, std::slice::from_ref(&ok));
        }
        // A new session knows nothing of the last one.
        agent.is(|status| status.spooled == 0).await;
        world.stop().await;
        agent.is(|status| status.state != LinkState::Connected).await;
        world.serve().await;
        agent.connected().await;
    }
}
