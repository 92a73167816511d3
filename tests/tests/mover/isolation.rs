//! A move touches one tenant. Others' rows are not read where a policy hides
//! them, not locked, not written; and an order for anybody else is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use webhost_agent::mover::connect::Endpoint;
use webhost_agent::mover::error::Kind;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::Step;
use webhost_proto::ids::{Epoch, MoveId, TenantId};
use webhost_tests::schema;
use webhost_tests::writers::{Findings, Mix, World, Writers, check, fill, session, table_hashes};

use crate::scene::{LEVELS, a_move, cut_over, number, sql, states, steps, world};

/// Where each row of a tenant lies, who wrote it and who locked it last: any
/// write or row lock shows in it, even one that was rolled back.
async fn traces(
    config: &tokio_postgres::Config,
    tenant: uuid::Uuid,
) -> BTreeMap<String, Vec<String>> {
    let (client, _driver) = session(config).await.expect("a session");
    let mut traces = BTreeMap::new();
    for table in table_hashes(config, tenant).await.expect("hashes").into_keys() {
        let column = if table == "customers" { "id" } else { "customer_id" };
        let rows = client
            .query(
                &format!(
                    "select format('%s %s %s %s %s', tableoid::regclass, ctid, xmin, xmax, x::text) \
                     from {table} x where {column} = $1 order by 1"
                ),
                &[&tenant],
            )
            .await
            .expect("rows");
        traces.insert(table, rows.iter().map(|row| row.get(0)).collect());
    }
    traces
}

async fn whole_move(run: &mut Run) {
    run.spec.way_back_until_us = jiff::Timestamp::now().as_microsecond() + 600_000_000;
    steps(run, &[Step::Preflight, Step::Guard, Step::Copy, Step::Drain, Step::Verify]).await;
    cut_over(run).await;
    run.spec.way_back_until_us = jiff::Timestamp::now().as_microsecond() + 200_000;
    steps(run, &[Step::WayBack, Step::Finish, Step::CleanUp]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elses_row_is_written_or_locked() {
    for schema in [schema::WEBHOST, schema::WEBHOST_PARTITIONED] {
        let world = world(schema, 2_000).await;
        let before = (
            traces(&world.source, world.neighbour).await,
            traces(&world.target, world.foreigner).await,
        );
        let mut run = a_move(&world);
        whole_move(&mut run).await;
        let after = (
            traces(&world.source, world.neighbour).await,
            traces(&world.target, world.foreigner).await,
        );
        assert_eq!(before, after);
        // And an undo of another move of another tenant, back from the target.
        let mut undone = a_move(&world);
        undone.spec.tenant = TenantId(world.neighbour);
        steps(&undone, &[Step::Guard, Step::Copy, Step::Undo]).await;
        assert_eq!(before.0, traces(&world.source, world.neighbour).await);
        assert_eq!(before.1, traces(&world.target, world.foreigner).await);
    }
}

/// While the tenant moves, others write without ever being refused, and no
/// guard of ours fires for them.
#[tokio::test(flavor = "multi_thread")]
async fn others_write_as_if_nothing_happened() {
    let world = world(schema::WEBHOST, 500).await;
    let third = uuid::Uuid::new_v4();
    let (client, _driver) = session(&world.source).await.expect("a session");
    let theirs = fill(&client, third, 1, 10).await.expect("fills");
    let others = World {
        tenant: world.neighbour,
        vehicles: vec![world.neighbour_vehicle],
        neighbour: third,
        neighbour_vehicle: theirs[0],
        points: 0,
        ..world.clone()
    };
    let writers =
        Writers::with(&others, &LEVELS[..3], Duration::from_millis(3), 91, Mix::default());
    let mut run = a_move(&world);
    whole_move(&mut run).await;
    let ledger = writers.stop().await.expect("writers");
    assert_eq!(ledger.refused, 0, "the neighbour met a guard");
    assert!(ledger.writes.len() > 20, "{} writes", ledger.writes.len());
    assert_eq!(states(&world).await, ("moved".into(), "active".into()));
    let mut found = check(&others, &ledger, 0).await.expect("check");
    // The one who moved is a stranger to the neighbour's model.
    found.foreign = 0;
    assert_eq!(found, Findings::default());
}

/// Policies that hide rows would make a copy that looks whole and is not: the
/// preflight refuses; a role that no policy binds moves the tenant.
#[tokio::test(flavor = "multi_thread")]
async fn policies_that_hide_rows_are_noticed() {
    let world = world(schema::WEBHOST, 300).await;
    for config in [&world.source, &world.target] {
        for table in ["vehicles", "gps_positions"] {
            sql(
                config,
                &format!(
                    "alter table {table} enable row level security; alter table {table} force row level security; \
                     create policy own on {table} using (customer_id::text = current_setting('app.tenant', true))"
                ),
            )
            .await;
        }
        sql(
            config,
            "do $$ begin if not exists (select from pg_roles where rolname = 'unbound') then \
               create role unbound login nosuperuser bypassrls inherit; end if; end $$; \
             grant pg_monitor, webhost_app to unbound; \
             grant set on parameter session_replication_role to unbound",
        )
        .await;
        let name = config.get_dbname().expect("a name");
        sql(config, &format!("grant create, connect, temporary on database {name} to unbound"))
            .await;
    }
    let run = a_move(&world);
    let said = match run.step(Step::Preflight).await {
        Err(error) => {
            assert_eq!(error.kind(), Kind::Refused, "{error}");
            error.to_string()
        }
        Ok(done) => format!("{done:?}"),
    };
    assert!(said.to_lowercase().contains("row"), "{said}");
    assert!(said.contains("vehicles") && said.contains("gps_positions"), "{said}");
    assert!(run.step(Step::Guard).await.is_err(), "nor are guards installed past it");

    let foreigner = table_hashes(&world.target, world.foreigner).await.expect("hashes");
    let unbound = |config: &tokio_postgres::Config| {
        let mut config = config.clone();
        config.user("unbound");
        Endpoint::Local(Box::new(config))
    };
    let mut run = a_move(&world);
    (run.source, run.target) = (unbound(&world.source), unbound(&world.target));
    let moved = table_hashes(&world.source, world.tenant).await.expect("hashes");
    steps(&run, &[Step::Guard, Step::Copy, Step::Drain, Step::Verify]).await;
    cut_over(&run).await;
    assert_eq!(moved, table_hashes(&world.target, world.tenant).await.expect("hashes"));
    assert_eq!(foreigner, table_hashes(&world.target, world.foreigner).await.expect("hashes"));
}

/// Orders that name a tenant who isn't there, an epoch that is over, or a move
/// that is another's, change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn orders_for_somebody_else_change_nothing() {
    let world = world(schema::WEBHOST, 100).await;
    let nobody = || {
        let mut run = a_move(&world);
        run.spec.tenant = TenantId::generate();
        run
    };
    let error = nobody().step(Step::Preflight).await.map(|done| format!("{done:?}"));
    let said = error.unwrap_or_else(|error| error.to_string());
    assert!(said.contains("no row"), "{said}");

    let run = a_move(&world);
    steps(&run, &[Step::Guard, Step::Copy]).await;
    let before = (
        table_hashes(&world.source, world.tenant).await.expect("hashes"),
        table_hashes(&world.target, world.tenant).await.expect("hashes"),
    );
    let same_tenant = |change: fn(&mut Run)| {
        let mut wrong = a_move(&world);
        wrong.spec = run.spec.clone();
        change(&mut wrong);
        wrong
    };
    for wrong in [
        // Another move of this tenant, at its epoch and later.
        same_tenant(|run| run.spec.move_id = MoveId::generate()),
        same_tenant(|run| {
            run.spec.move_id = MoveId::generate();
            run.spec.epoch = Epoch(7);
        }),
        // This move, for a tenant that it isn't of.
        same_tenant(|run| run.spec.tenant = TenantId::generate()),
    ] {
        for step in
            [Step::Copy, Step::Drain, Step::CutOver, Step::RollBack, Step::Finish, Step::CleanUp]
        {
            let error = wrong.step(step).await.map(|_| ()).expect_err("refused");
            assert_eq!(error.kind(), Kind::Refused, "{step}: {error}");
        }
    }
    let after = (
        table_hashes(&world.source, world.tenant).await.expect("hashes"),
        table_hashes(&world.target, world.tenant).await.expect("hashes"),
    );
    assert_eq!(before, after);
    assert_eq!(states(&world).await, ("active".into(), "standby".into()));
    // The right one still can.
    cut_over(&run).await;
}

/// Names and values that would end a quoted text, wherever ours are made.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_only_names() {
    let world = world(schema::WEBHOST, 100).await;
    for config in [&world.source, &world.target] {
        sql(
            config,
            r#"create table "x""; drop table plans; --" (
                 "id""'; select" int, customer_id uuid not null references customers (id),
                 "a'b\$guard$" text, primary key ("id""'; select"));
               alter table "x""; drop table plans; --" owner to webhost_app"#,
        )
        .await;
    }
    let t = world.tenant;
    sql(
        &world.source,
        &format!(
            r#"insert into "x""; drop table plans; --" values (1, '{t}', 'x''); drop table plans; --'),
                 (2, '{t}', E'\\'), (3, '{t}', null), (4, '{t}', '$guard$; end');
               update customers set slug = E'''; drop table plans; -- \\$1' where id = '{t}'"#
        ),
    )
    .await;
    let before = table_hashes(&world.source, t).await.expect("hashes");
    let mut run = a_move(&world);
    run.spec.target_place = "b'; drop table plans; --".into();
    steps(&run, &[Step::Guard, Step::Copy]).await;
    sql(&world.source, &format!(r#"update "x""; drop table plans; --" set "id""'; select" = 9 where "id""'; select" = 2 and customer_id = '{t}'"#)).await;
    steps(&run, &[Step::Drain, Step::Verify]).await;
    cut_over(&run).await;
    let after = table_hashes(&world.target, t).await.expect("hashes");
    assert_eq!(before.len(), after.len());
    assert_eq!(after, table_hashes(&world.source, t).await.expect("hashes"));
    for config in [&world.source, &world.target] {
        assert_eq!(number(config, "select count(*) from plans").await, 4);
    }
    let (client, _driver) = session(&world.source).await.expect("a session");
    let refused = client
        .batch_execute(&format!("delete from drivers where customer_id = '{t}'"))
        .await
        .expect_err("refused");
    assert_eq!(
        refused.as_db_error().and_then(|told| told.detail()),
        Some("b'; drop table plans; --")
    );
}

/// A shared node that is empty when the first tenant is on its way gets others
/// meanwhile: they change and delete their rows as everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_an_empty_shared_node_writes_while_another_is_on_its_way() {
    let (world, mut run) = crate::indexes::alone(schema::WEBHOST, 300).await;
    run.spec.target_dedicated = false;
    steps(&run, &[Step::Guard, Step::Copy]).await;
    let newcomer = uuid::Uuid::new_v4();
    let (client, _driver) = session(&world.target).await.expect("a session");
    fill(&client, newcomer, 1, 10).await.expect("fills");
    for change in [
        "update gps_positions set speed = 1 where customer_id = $1",
        "delete from gps_positions where customer_id = $1",
    ] {
        assert_eq!(client.execute(change, &[&newcomer]).await.expect(change), 10);
    }
    steps(&run, &[Step::Undo]).await;
}
