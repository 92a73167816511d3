use uuid::Uuid;
use webhost_proto::wire::{self, Basis, Metric};

use super::living::LINGER;
use super::*;
use crate::collect::access_log::AccessTenant;
use crate::collect::container::ContainerTenant;
use crate::collect::postgres::{Connections, DbTenant};
use crate::collect::proc::Use;
use crate::collect::source::Health;

mod told;

const INTERVAL: Duration = Duration::from_secs(5);

/// The sources of a node, and a clock.
struct Node {
    host: Published<HostReading>,
    containers: Published<ContainersReading>,
    postgres: Published<PostgresReading>,
    app: Published<AppReading>,
    shared: Published<SharedReading>,
    slices: Published<SlicesReading>,
    access: Published<AccessReading>,
    redis: Published<RedisReading>,
    checks: Published<ChecksReading>,
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
            slices: Published::off("none"),
            access: Published::off("none"),
            redis: Published::off("none"),
            checks: Published::off("none"),
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
            slices: &self.slices,
            access: &self.access,
            redis: &self.redis,
            checks: &self.checks,
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
        tenants: [(
            tenant(1),
            ContainerTenant { cpu_us, memory_bytes: 77, running, ..Default::default() },
        )]
        .into(),
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

#[test]
fn nginxs_log_stands_in_for_an_application_that_counts_nothing() {
    let mut node = Node::new(false);
    let said = |calls, errors, duration_us| AccessTenant {
        calls,
        errors,
        duration_us,
        clients: 3,
        ..AccessTenant::default()
    };
    let told = |one, two| AccessReading {
        tenants: [(tenant(1), one), (tenant(2), two)].into(),
        unknown: 0,
    };
    // The application speaks of tenant 1's points, and of nobody's calls.
    node.app(&[(0, 100)]).process(0).assemble();
    let (round, now) = (node.round + 1, node.now);
    set(&mut node.access, round, now, told(said(10, 1, 500), said(5, 0, 900)));
    let round = node.app(&[(4, 100)]).process(0).assemble();
    let values = |metric| column(&round, metric, Basis::Measured).expect("a column");
    assert_eq!(values(Metric::ApiCalls), [Some(10), Some(5)]);
    assert_eq!(values(Metric::ApiErrors), [Some(1), Some(0)]);
    assert_eq!(values(Metric::ClientConnections), [Some(3), Some(3)]);
    // Tenant 1's durations are the application's, which is the truth.
    assert_eq!(values(Metric::RequestDurationUs), [Some(0), Some(900)]);
    let round = node.assemble();
    let calls = column(&round, Metric::ApiCalls, Basis::Measured);
    assert_eq!(calls, Some(vec![Some(0), Some(0)]), "nothing counts twice");
}

#[test]
fn slices_and_containers_of_one_tenant_add_up() {
    let mut node = Node::new(false);
    let own =
        |cpu_us| ContainerTenant { cpu_us, memory_bytes: 100, running: 1, ..Default::default() };
    for (container, slice, expected) in [(10, 20, 30), (15, 20, 5), (15, 60, 40)] {
        let (round, now) = (node.round + 1, node.now);
        let containers = ContainersReading {
            tenants: [(tenant(1), own(container))].into(),
            ..ContainersReading::default()
        };
        set(&mut node.containers, round, now, containers);
        set(&mut node.slices, round, now, [(tenant(1), own(slice))].into());
        let round = node.assemble();
        let cpu = column(&round, Metric::CpuUs, Basis::Measured);
        assert_eq!(cpu, Some(vec![Some(expected)]));
        let memory = column(&round, Metric::MemoryBytes, Basis::Measured);
        assert_eq!(memory, Some(vec![Some(200)]));
    }
}

#[test]
fn a_machine_of_one_tenant_is_his_as_a_whole() {
    let mut node = Node::new(false);
    node.assembler = Assembler::new(Vec::new(), false, false).of_machine(Some(tenant(1)));
    for (busy, increase) in [(500, 500), (800, 300)] {
        let reading =
            HostReading { cpu_busy_us: busy, memory_used_bytes: 77, ..HostReading::default() };
        let (round, now) = (node.round + 1, node.now);
        set(&mut node.host, round, now, reading);
        let round = node.assemble();
        let cpu = column(&round, Metric::CpuUs, Basis::Measured);
        assert_eq!(cpu, Some(vec![Some(increase)]));
        let memory = column(&round, Metric::MemoryBytes, Basis::Measured);
        assert_eq!(memory, Some(vec![Some(77)]));
    }
}

#[test]
fn what_redis_holds_for_a_tenant_is_his_memory() {
    let mut node = Node::new(false);
    let keys = RedisTenant { keys: 10, keys_error: 1, bytes: 5_000 };
    let reading = RedisReading { tenants: [(tenant(1), keys)].into(), ..RedisReading::default() };
    let (round, now) = (node.round + 1, node.now);
    set(&mut node.redis, round, now, reading);
    node.app(&[(0, 0), (0, 0)]).assemble();
    let round = node.assemble();
    let memory = column(&round, Metric::MemoryBytes, Basis::Attributed);
    assert_eq!(memory, Some(vec![Some(5_000), None]));
}

#[test]
fn a_tenant_that_is_forgotten_and_comes_back_counts_from_zero() {
    let mut node = Node::new(false);
    let own = |cpu_us, running| ContainersReading {
        tenants: [(
            tenant(1),
            ContainerTenant { cpu_us, memory_bytes: 1, running, ..Default::default() },
        )]
        .into(),
        ..ContainersReading::default()
    };
    let mut seen = Vec::new();
    for reading in [own(900, 1), own(900, 0), ContainersReading::default(), own(50, 1)] {
        let (round, now) = (node.round + 1, node.now);
        set(&mut node.containers, round, now, reading);
        let round = node.assemble();
        seen.push(column(&round, Metric::CpuUs, Basis::Measured));
        assert!(node.assembler.reported.len() <= 1);
    }
    assert_eq!(seen, [Some(vec![Some(900)]), None, None, Some(vec![Some(50)])]);
    let (round, now) = (node.round + 1, node.now);
    set(&mut node.containers, round, now, ContainersReading::default());
    node.assemble();
    assert!(node.assembler.reported.is_empty(), "nothing is kept of who left");
}

#[tokio::test(start_paused = true)]
async fn what_containers_do_besides_is_told_once_and_a_kill_of_the_last_one_too() {
    let mut node = Node::new(false);
    let reading = |running, kills, tasks| {
        let mut own = ContainerTenant { running, ..ContainerTenant::default() };
        own.detail.counts[detail::OOM_KILLS] = Some(kills);
        own.detail.counts[detail::READ] = Some(40);
        own.detail.tasks = tasks;
        ContainersReading { tenants: [(tenant(1), own)].into(), ..Default::default() }
    };
    let mut told = Vec::new();
    for (running, kills, tasks) in
        [(1, 0, Some(5)), (1, 0, Some(5)), (0, 1, None), (0, 1, None), (1, 1, Some(5))]
    {
        set(&mut node.containers, node.round + 1, node.now, reading(running, kills, tasks));
        let round = node.assemble();
        let value = |metric| {
            let column = round.report.columns.iter().find(|column| column.metric == metric);
            column.and_then(|column| column.values[0])
        };
        told.push((
            value(Metric::IoReadBytes),
            value(Metric::OomKills),
            value(Metric::Tasks),
            round.tenants.get(&tenant(1)).and_then(|own| own.counted[detail::OOM_KILLS]),
        ));
    }
    let expected = [
        (Some(40), None, Some(5), Some(0)),
        (None, None, Some(5), Some(0)),
        (None, Some(1), None, Some(1)),
        (None, None, None, None),
        (None, None, Some(5), Some(1)),
    ];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn the_database_server_is_told_when_it_was_read_anew() {
    let mut node = Node::new(true);
    let mut told = Vec::new();
    for (number, hit, failures) in [(1, 100, 2), (1, 100, 2), (2, 150, 2), (3, 150, 5)] {
        node.postgres(&[1], &[]);
        let archiving = Some(wire::Archiving { failures, ..Default::default() });
        let sample = wire::DatabaseSample { blocks_hit: hit, archiving, ..Default::default() };
        let server = Some(ServerReading { number, sample });
        node.postgres.value.as_mut().expect("a reading").server = server;
        let round = node.assemble();
        let sample = round.report.database;
        told.push(sample.map(|s| (s.blocks_hit, s.archiving.map(|a| a.failures))));
        assert!(round.server.is_some_and(|server| server.sample.blocks_hit == hit));
    }
    let expected = [Some((100, Some(2))), None, Some((50, Some(0))), Some((0, Some(3)))];
    assert_eq!(told, expected);
}
