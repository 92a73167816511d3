//! Tables whose rows belong to the tenant only through a parent.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::spec::{Done, Step, VerdictKind};
use webhost_tests::schema;
use webhost_tests::writers::{Isolation, World, session};

use crate::scene::{LEVELS, a_move, cut_over, number, objects, sql, steps, world};

/// Two levels below a table with `customer_id`; names that need quotes; a
/// reference to itself, and one that is checked late.
const BELOW: &str = r#"
create table route_points (
    id       uuid primary key default gen_random_uuid(),
    route_id uuid not null references routes (id) on delete cascade on update cascade
             deferrable initially immediate,
    before   uuid references route_points (id) on delete set null,
    seq      int not null default 0
);
create index on route_points (route_id);
create index on route_points (before);
create table "PointTags" (
    "pointId" uuid not null references route_points (id) on delete cascade on update cascade,
    "Tag"     text not null,
    value     int not null default 0,
    primary key ("pointId", "Tag")
);
create table plan_notes (
    id     int primary key,
    made_by uuid references customer_users (id),
    note   text not null
);
alter table plans add column note_id int references plan_notes (id);
alter table subscriptions add column note_id int references plan_notes (id);
"#;

fn with_points() -> String {
    format!("{}{BELOW}", schema::WEBHOST)
}

async fn a_world() -> World {
    let world = world(&with_points(), 200).await;
    for config in [&world.source, &world.target] {
        sql(
            config,
            "insert into routes (customer_id, vehicle_id, name) \
               select customer_id, id, 'r' || n from vehicles, generate_series(1, 6) n; \
             insert into route_points (route_id, seq) select id, n from routes, generate_series(1, 5) n; \
             insert into \"PointTags\" select id, 'tag' || n, seq from route_points, generate_series(1, 2) n; \
             analyze",
        )
        .await;
    }
    world
}

/// The tenant's rows of both tables, told without the mover's SQL.
async fn rows(config: &tokio_postgres::Config, tenant: uuid::Uuid) -> BTreeSet<String> {
    let (client, _driver) = session(config).await.expect("a session");
    client
        .query(
            "select 'r ' || r.id || ' ' || r.name from routes r where r.customer_id = $1 \
             union all select 'p ' || p::text from route_points p join routes r on r.id = p.route_id \
               where r.customer_id = $1 \
             union all select 't ' || t::text from \"PointTags\" t join route_points p on p.id = t.\"pointId\" \
               join routes r on r.id = p.route_id where r.customer_id = $1",
            &[&tenant],
        )
        .await
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_below_a_tenants_table_gets_its_verdict() {
    let world = a_world().await;
    let Done::Preflight(found) = a_move(&world).step(Step::Preflight).await.expect("passes") else {
        panic!("another answer")
    };
    let of = |table: &str| found.tables.iter().find(|v| v.table == table).expect("listed");
    for (table, kind, said) in [
        (
            "public.route_points",
            VerdictKind::Move,
            "through a parent: route_id points to public.routes",
        ),
        (
            "public.\"PointTags\"",
            VerdictKind::Move,
            "through a parent: pointId points to public.route_points",
        ),
        // Pointed to by tenant rows, and only mentions who made it.
        ("public.plan_notes", VerdictKind::Reference, "must be on the target"),
    ] {
        let verdict = of(table);
        assert!(verdict.verdict == kind && verdict.reason.contains(said), "{verdict:?}");
    }
    assert!(of("public.route_points").reason.contains("points to itself"));
    let warnings = found.warnings().join("\n");
    assert!(warnings.contains("looks up its public.routes"), "{warnings}");
}

/// Writers of everything that can make a row change hands, until they are told
/// that the tenant lives elsewhere.
struct Chaos {
    tasks: JoinSet<u64>,
    stop: CancellationToken,
}

impl Chaos {
    fn start(world: &World, levels: &[Isolation], seed: u64) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (at, level) in levels.iter().enumerate() {
            tasks.spawn(write(world.clone(), *level, seed + at as u64, stop.clone()));
        }
        Self { tasks, stop }
    }

    /// How many transactions were acknowledged.
    async fn end(mut self) -> u64 {
        self.stop.cancel();
        let mut all = 0;
        while let Some(ended) = self.tasks.join_next().await {
            all += ended.expect("a writer");
        }
        all
    }
}

fn statement(world: &World, random: &mut StdRng) -> String {
    let (t, n) = (world.tenant, world.neighbour);
    let routes = |who| {
        format!("(select id from routes where customer_id = '{who}' order by random() limit 1)")
    };
    let points = |who| {
        format!(
            "(select p.id from route_points p join routes r on r.id = p.route_id \
         where r.customer_id = '{who}' order by random() limit 1)"
        )
    };
    let vehicle = |who| format!("(select id from vehicles where customer_id = '{who}' limit 1)");
    let value: u32 = random.random_range(0..1000);
    match random.random_range(0..13) {
        0 => format!(
            "with r as (insert into routes (customer_id, vehicle_id, name) values ('{t}', {}, 'n{value}') returning id), \
             p as (insert into route_points (route_id, seq) select id, n from r, generate_series(1, 3) n returning id) \
             insert into \"PointTags\" select id, 'x', {value} from p",
            vehicle(t)
        ),
        1 => format!("delete from routes where id = {} and customer_id = '{t}'", routes(t)),
        2 => format!("update route_points set seq = {value} where id = {}", points(t)),
        3 => format!("update route_points set route_id = {} where id = {}", routes(t), points(t)),
        4 => format!("update route_points set route_id = {} where id = {}", routes(n), points(t)),
        5 => format!("update route_points set route_id = {} where id = {}", routes(t), points(n)),
        6 => format!(
            "update routes set customer_id = '{n}', vehicle_id = {}, geofence_id = null where id = {}",
            vehicle(n),
            routes(t)
        ),
        7 => format!(
            "update routes set customer_id = '{t}', vehicle_id = {}, geofence_id = null where id = {}",
            vehicle(t),
            routes(n)
        ),
        8 => format!("update routes set id = gen_random_uuid() where id = {}", routes(t)),
        9 => format!("update route_points set id = gen_random_uuid() where id = {}", points(t)),
        10 => format!("delete from route_points where id = {}", points(t)),
        11 => {
            format!("update \"PointTags\" set value = value + 1 where \"pointId\" = {}", points(t))
        }
        _ => format!(
            "set constraints all deferred; \
             with i as (select gen_random_uuid() as id) \
             insert into route_points (route_id, seq) select id, {value} from i; \
             insert into routes (id, customer_id, vehicle_id, name) \
               select distinct p.route_id, '{t}'::uuid, {}, 'late' from route_points p \
               where p.seq = {value} and not exists (select 1 from routes r where r.id = p.route_id)",
            vehicle(t)
        ),
    }
}

/// Transactions of one writer before it slows down.
const HASTE: u64 = 300;

async fn write(world: World, level: Isolation, seed: u64, stop: CancellationToken) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut config = world.source.clone();
    config.user(schema::APP);
    let (client, _driver) = session(&config).await.expect("a session");
    let begin = match level {
        Isolation::ReadCommitted => "begin",
        Isolation::RepeatableRead => "begin isolation level repeatable read",
        Isolation::Serializable => "begin isolation level serializable",
    };
    let mut acknowledged = 0;
    while !stop.is_cancelled() {
        let mut text: Vec<String> = Vec::new();
        for _ in 0..random.random_range(1..4) {
            text.push(statement(&world, &mut random));
        }
        let pause = random.random_range(0..4_000);
        let outcome = async {
            client.batch_execute(begin).await?;
            for (at, statement) in text.iter().enumerate() {
                if at > 0 {
                    tokio::time::sleep(Duration::from_micros(pause)).await;
                }
                client.batch_execute(statement).await?;
            }
            client.batch_execute("commit").await
        }
        .await;
        match outcome {
            Ok(()) => acknowledged += 1,
            Err(error) => {
                let said = error.as_db_error().expect("an answer");
                let code = said.code().code().to_owned();
                let place = said.detail().unwrap_or_default().to_owned();
                client.batch_execute("rollback").await.expect("rolls back");
                match code.as_str() {
                    "MG001" if !place.is_empty() => return acknowledged,
                    // Refused for a moment, serialisation, deadlock, and what
                    // another writer took away: parents, unique values.
                    "MG001" | "40001" | "40P01" | "23503" | "23502" => {}
                    _ => panic!("seed {seed}: {said:?} on {text:?}"),
                }
            }
        }
        // So many at full speed: on a machine that is short of time six of them
        // would outrun any drain, and more so the longer it takes.
        let slower = if acknowledged < HASTE { 1 } else { 10 };
        let pause = random.random_range(5_000..20_000) * slower;
        tokio::time::sleep(Duration::from_micros(pause)).await;
    }
    acknowledged
}

/// Where a mover stops on the way; the step is repeated then.
const STOPS: [&str; 6] =
    ["mid_copy", "between_parts", "mid_drain", "between_commits", "after_take", "after_prepare"];

#[tokio::test(flavor = "multi_thread")]
async fn rows_below_a_parent_move_under_chaos_with_stops() {
    // Key by key, in batches that split transactions; and in bulk.
    for (seed, batch, bulk) in [(11, 7, None), (12, 100, Some(20_000))] {
        let world = a_world().await;
        let foreign = rows(&world.target, world.foreigner).await;
        let mut run = a_move(&world);
        (run.tuning.drain_batch, run.tuning.drain_bulk) = (batch, bulk);
        // Writers outrun batches of seven: what they leave is taken at once, at the switch.
        run.tuning.drain_patience = Duration::from_secs(3);
        let chaos = Chaos::start(&world, &LEVELS, seed);
        for step in [Step::Guard, Step::Copy, Step::Drain, Step::Verify, Step::CutOver] {
            for stop in STOPS {
                run.fail = Fail::stop_at(stop);
                if let Err(error) = run.step(step).await {
                    assert!(error.to_string().contains(stop), "seed {seed}, {step}: {error}");
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            run.fail = Fail::Off;
            steps(&run, &[step]).await;
        }
        assert!(cut_over(&run).await.recovered);
        let written = chaos.end().await;
        assert!(written > 30, "the writers wrote: {written}");
        // The source takes no write any more: it is what the target must be.
        let (here, there) =
            (rows(&world.source, world.tenant).await, rows(&world.target, world.tenant).await);
        let lost: Vec<_> = here.difference(&there).collect();
        let wrong: Vec<_> = there.difference(&here).collect();
        assert!(lost.is_empty() && wrong.is_empty(), "seed {seed}: {lost:#?} {wrong:#?}");
        assert!(here.len() > 20, "{}", here.len());
        assert_eq!(
            foreign,
            rows(&world.target, world.foreigner).await,
            "the target's other tenant"
        );
        let orphans = "select count(*) from route_points p where not exists \
                       (select 1 from routes r where r.id = p.route_id)";
        assert_eq!(number(&world.target, orphans).await, 0, "seed {seed}");
        assert_eq!(number(&world.source, orphans).await, 0, "seed {seed}");
    }
}

/// An undo takes what it copied with it, wherever the copy stopped.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_leaves_no_row_below_a_parent() {
    let world = a_world().await;
    let before = objects(&world.target).await;
    let counts =
        "select (select count(*) from route_points) + (select count(*) from \"PointTags\")";
    let rows = number(&world.target, counts).await;
    for stop in ["mid_copy", "between_parts", "after_copy", "mid_drain"] {
        let mut run = a_move(&world);
        run.fail = Fail::stop_at(stop);
        for step in [Step::Guard, Step::Copy, Step::Drain] {
            if run.step(step).await.is_err() {
                break;
            }
        }
        steps(&run, &[Step::Undo]).await;
        assert_eq!(number(&world.target, counts).await, rows, "{stop}");
        assert_eq!(objects(&world.target).await, before, "{stop}");
    }
}

/// The guard tells whose a row is: the neighbour writes on, the tenant's
/// writes are refused on the target and after the move.
#[tokio::test(flavor = "multi_thread")]
async fn guards_below_a_parent_refuse_the_tenants_rows_alone() {
    let world = a_world().await;
    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy]).await;
    cut_over(&run).await;
    let touch = |who| {
        format!(
            "update route_points p set seq = seq + 1 from routes r \
             where r.id = p.route_id and r.customer_id = '{who}'"
        )
    };
    sql(&world.source, &touch(world.neighbour)).await;
    sql(&world.target, &touch(world.foreigner)).await;
    sql(&world.target, &touch(world.tenant)).await;
    let (client, _driver) = session(&world.source).await.expect("a session");
    for text in [
        touch(world.tenant),
        format!(
            "insert into route_points (route_id) select id from routes where customer_id = '{}' limit 1",
            world.tenant
        ),
        format!(
            "delete from \"PointTags\" t using route_points p, routes r where p.id = t.\"pointId\" \
             and r.id = p.route_id and r.customer_id = '{}'",
            world.tenant
        ),
    ] {
        let error = client.batch_execute(&text).await.expect_err("refused");
        assert_eq!(error.code().map(|code| code.code()), Some("MG001"), "{text}");
    }
}
