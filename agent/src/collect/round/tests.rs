use uuid::Uuid;
use webhost_proto::wire::{Basis, Metric};

use super::*;
use crate::collect::container::ContainerTenant;
use crate::collect::postgres::{Connections, DbTenant};
use crate::collect::proc::Use;
use crate::collect::source::Health;

const INTERVAL: Duration = Duration::from_secs(5);

/// The sources of a node, and a clock.
struct Node {
    host: Published<HostReading>,
    containers: Published<ContainersReading>,
    postgres: Published<PostgresReading>,
    app: Published<AppReading>,
    shared: Published<SharedReading>,
    assembler: Assembler,
    now: Instant,
    round: u64,
}

fn tenant(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(n))
}

fn set<T>(published: &mut Published<T>, round: u64, now: Instant, value: T) {
    *published = Published {
        round,
        value_round: round,
        taken: Some(now),
        health: Health::Ok,
        value: Some(value),
    };
}

impl Node {
    fn new(has_postgres: bool) -> Self {
        let plan = SharedPlan { name: "webhost".into(), split_by: SplitBy::App, container: None };
        Self {
            host: Published::waiting(),
            containers: Published::off("none"),
            postgres: Published::waiting(),
            app: Published::waiting(),
            shared: Published::waiting(),
            assembler: Assembler::new(vec![plan], has_postgres, true),
            now: Instant::now(),
            round: 0,
        }
    }

    /// Points and request time as totals, of tenants 1, 2, …
    fn app(&mut self, totals: &[(u64, u64)]) -> &mut Self {
        let tenants = totals.iter().enumerate().map(|(index, &(points, duration))| {
            let values = AppTenant {
                gps_points: Some(points),
                request_duration_us: Some(duration),
                ..AppTenant::default()
            };
            (tenant(index as u128 + 1), values)
        });
        let reading = AppReading { bounds: Vec::new(), tenants: tenants.collect() };
        set(&mut self.app, self.round + 1, self.now, reading);
        self
    }

    fn postgres(&mut self, here: &[u128], elsewhere: &[u128]) -> &mut Self {
        let reading = PostgresReading {
            tenants: here
                .iter()
                .map(|&n| {
                    let row = DbTenant {
                        slug: format!("t{n}"),
                        storage_bytes: Some(10),
                        ..DbTenant::default()
                    };
                    (tenant(n), row)
                })
                .collect(),
            elsewhere: elsewhere.iter().map(|&n| tenant(n)).collect(),
            connections: Connections { shared: (4, 0), ..Connections::default() },
            ..PostgresReading::default()
        };
        set(&mut self.postgres, self.round + 1, self.now, reading);
        self
    }

    fn process(&mut self, cpu_us: u64) -> &mut Self {
        let used = Use { cpu_us, memory_bytes: 1_000 };
        let reading = [("webhost".to_owned(), used)].into();
        set(&mut self.shared, self.round + 1, self.now, reading);
        self
    }

    fn assemble(&mut self) -> Round {
        self.round += 1;
        self.now += INTERVAL;
        let sources = Sources {
            host: &self.host,
            containers: &self.containers,
            postgres: &self.postgres,
            app: &self.app,
            shared: &self.shared,
        };
        self.assembler.assemble(&sources, self.now, 0, INTERVAL)
    }
}

fn column(round: &Round, metric: Metric, basis: Basis) -> Option<Vec<Option<u64>>> {
    let mut found = round.report.columns.iter().filter(|c| c.metric == metric && c.basis == basis);
    let column = found.next()?;
    assert!(found.next().is_none(), "one column for each metric and basis");
    assert_eq!(column.values.len(), round.report.tenants.len());
    Some(column.values.clone())
}

#[test]
fn increases_are_reported_once_and_split_by_work() {
    let mut node = Node::new(true);
    node.app(&[(0, 0), (0, 0)]).postgres(&[1, 2], &[]).process(0).assemble();
    let round = node.app(&[(30, 750), (10, 250)]).postgres(&[1, 2], &[]).process(4_000).assemble();
    assert_eq!(round.report.tenants, [(tenant(1), "t1".to_owned()), (tenant(2), "t2".to_owned())]);
    let points = column(&round, Metric::GpsPoints, Basis::Measured);
    assert_eq!(points, Some(vec![Some(30), Some(10)]));
    // 3000 + 750 and 1000 + 250 microseconds of work.
    let cpu = column(&round, Metric::CpuUs, Basis::Attributed);
    assert_eq!(cpu, Some(vec![Some(3_000), Some(1_000)]));
    let memory = column(&round, Metric::MemoryBytes, Basis::Attributed);
    assert_eq!(memory, Some(vec![Some(750), Some(250)]));
    let connections = column(&round, Metric::DbConnections, Basis::Attributed);
    assert_eq!(connections.expect("a column").into_iter().flatten().sum::<u64>(), 4);
    assert_eq!(column(&round, Metric::CpuUs, Basis::Measured), None);

    let round = node.assemble();
    let points = column(&round, Metric::GpsPoints, Basis::Measured);
    assert_eq!(points, Some(vec![Some(0), Some(0)]), "nothing counts twice");
}

#[test]
fn who_lives_elsewhere_is_not_reported_and_nobody_pays_for_him() {
    let mut node = Node::new(true);
    node.app(&[(0, 0), (0, 0)]).postgres(&[1], &[2]).process(0).assemble();
    let round = node.app(&[(0, 500), (0, 500)]).postgres(&[1], &[2]).process(1_000).assemble();
    assert_eq!(round.report.tenants, [(tenant(1), "t1".to_owned())]);
    assert_eq!(column(&round, Metric::CpuUs, Basis::Attributed), Some(vec![Some(500)]));
    // When he comes back, what he did meanwhile is no usage here.
    let round = node.app(&[(0, 500), (7, 500)]).postgres(&[1, 2], &[]).process(1_000).assemble();
    let points = column(&round, Metric::GpsPoints, Basis::Measured);
    assert_eq!(points, Some(vec![Some(0), Some(7)]));
}

#[test]
fn nobody_is_named_before_the_database_has_spoken() {
    let mut node = Node::new(true);
    let round = node.app(&[(5, 5)]).assemble();
    assert!(round.report.tenants.is_empty());
    let round = node.app(&[(8, 5)]).postgres(&[1], &[]).assemble();
    let points = column(&round, Metric::GpsPoints, Basis::Measured);
    assert_eq!(points, Some(vec![Some(8)]), "and what was done before is not lost");
    // Later its silence changes nothing.
    node.postgres.health = Health::Degraded("away".into());
    node.postgres.taken = Some(node.now);
    for _ in 0..10 {
        let round = node.assemble();
        assert_eq!(round.report.tenants.len(), 1);
    }
    let round = node.assemble();
    assert_eq!(column(&round, Metric::DbConnections, Basis::Attributed), None, "a stale gauge");
    let states: Vec<i32> = round.report.sources.iter().map(|source| source.state).collect();
    assert_eq!(states[2], i32::from(wire::SourceState::Degraded));
}

#[test]
fn a_stranger_is_reported_while_active() {
    let mut node = Node::new(true);
    node.app(&[(0, 0), (0, 0)]).postgres(&[1], &[]).assemble();
    let round = node.app(&[(0, 0), (3, 0)]).postgres(&[1], &[]).assemble();
    assert_eq!(round.report.tenants.len(), 2, "a series that moves is a fact");
    node.now += LINGER;
    let round = node.postgres(&[1], &[]).assemble();
    assert_eq!(round.report.tenants.len(), 1, "one that stands still is a leftover");
}

#[test]
fn a_container_of_ones_own_is_measured_beside_the_shared_part() {
    let mut node = Node::new(false);
    let own = |cpu_us, running| ContainersReading {
        tenants: [(tenant(1), ContainerTenant { cpu_us, memory_bytes: 77, running })].into(),
        ..ContainersReading::default()
    };
    let now = node.now;
    set(&mut node.containers, 1, now, own(0, 1));
    node.app(&[(0, 0)]).process(0).assemble();
    let now = node.now;
    set(&mut node.containers, 2, now, own(900, 1));
    let round = node.app(&[(0, 10)]).process(40).assemble();
    assert_eq!(column(&round, Metric::CpuUs, Basis::Measured), Some(vec![Some(900)]));
    assert_eq!(column(&round, Metric::CpuUs, Basis::Attributed), Some(vec![Some(40)]));
    assert_eq!(column(&round, Metric::MemoryBytes, Basis::Measured), Some(vec![Some(77)]));
    let now = node.now;
    set(&mut node.containers, 3, now, own(950, 0));
    let round = node.assemble();
    assert_eq!(column(&round, Metric::CpuUs, Basis::Measured), Some(vec![Some(50)]));
    assert_eq!(column(&round, Metric::MemoryBytes, Basis::Measured), None);
}
