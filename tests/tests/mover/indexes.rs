//! Indexes that a copy puts aside: never missed, whatever happens meanwhile.

use std::time::Duration;

use webhost_agent::mover::fail::Fail;
use webhost_agent::mover::run::Run;
use webhost_agent::mover::spec::Step;
use webhost_tests::schema;
use webhost_tests::writers::{Findings, World, Writers, check, session};

use crate::scene::{LEVELS, a_move, cut_over, sql, states, steps, world};

/// Every index and constraint of the application's tables.
async fn definitions(config: &tokio_postgres::Config) -> Vec<String> {
    let (client, _driver) = session(config).await.expect("a session");
    client
        .query(
            "select indexdef from pg_indexes where schemaname = 'public' \
             union all select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) \
             from pg_constraint where connamespace = 'public'::regnamespace order by 1",
            &[],
        )
        .await
        .expect("answers")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// A move to a node that serves nobody yet.
pub(crate) async fn alone(schema: &str, points: u32) -> (World, Run) {
    let world = world(schema, points).await;
    let gone = "set session_replication_role = replica; delete from customers; \
         do $$ declare t regclass; begin \
           for t in select attrelid from pg_attribute a join pg_class c on c.oid = a.attrelid \
             where attname = 'customer_id' and relkind in ('r', 'p') and not relispartition \
             and relnamespace = 'public'::regnamespace \
           loop execute format('delete from %s', t); end loop; end $$";
    sql(&world.target, gone).await;
    let run = dedicated(&world);
    (world, run)
}

fn dedicated(world: &World) -> Run {
    let mut run = a_move(world);
    run.spec.target_dedicated = true;
    run.tuning.set_aside_rows = 10;
    run.tuning.copy_streams = Some(3);
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_were_put_aside_come_back_as_they_were() {
    for schema in [schema::WEBHOST, schema::WEBHOST_PARTITIONED] {
        let (world, mut run) = alone(schema, 3_000).await;
        let before = definitions(&world.target).await;
        let writers = Writers::start(&world, &LEVELS[..3], Duration::from_millis(5), 1);
        for stop in ["after_set_aside", "mid_copy", "between_parts", "mid_indexes"] {
            run.fail = Fail::stop_at(stop);
            steps(&run, &[Step::Guard]).await;
            assert!(run.step(Step::Copy).await.is_err(), "{stop}");
            let now = definitions(&world.target).await;
            assert!(now.len() < before.len(), "{stop}: none was put aside");
            assert!(now.iter().all(|definition| before.contains(definition)), "{stop}");
            // Whatever step comes next brings them back first.
            if stop == "mid_copy" {
                steps(&run, &[Step::Drain]).await;
                assert_eq!(before, definitions(&world.target).await, "{stop}");
            }
            if stop == "mid_indexes" {
                break;
            }
            steps(&run, &[Step::Undo]).await;
            assert_eq!(before, definitions(&world.target).await, "{stop}");
            run = dedicated(&world);
        }
        // Stopped with every row over and no index: a repetition ends it.
        steps(&run, &[Step::Copy]).await;
        assert_eq!(before, definitions(&world.target).await);
        steps(&run, &[Step::Verify]).await;
        cut_over(&run).await;
        let ledger = writers.stop().await.expect("writers");
        assert_eq!(states(&world).await, ("moved".into(), "active".into()));
        assert_eq!(check(&world, &ledger, 1).await.expect("check"), Findings::default());
    }
}

/// Where anybody else lives, or could, every index stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_target_keeps_its_indexes() {
    let (world, mut run) = alone(schema::WEBHOST, 500).await;
    let before = definitions(&world.target).await;
    run.spec.target_dedicated = false;
    run.fail = Fail::stop_at("mid_copy");
    steps(&run, &[Step::Guard]).await;
    assert!(run.step(Step::Copy).await.is_err());
    assert_eq!(before, definitions(&world.target).await, "others may come");
    steps(&run, &[Step::Undo]).await;

    // Called dedicated, and yet somebody is there.
    let position = format!(
        "set session_replication_role = replica; \
         insert into gps_positions select gen_random_uuid(), '{}', gen_random_uuid(), now(), 1, 1, \
           null, null, null, null, null, st_setsrid(st_makepoint(1, 1), 4326)",
        world.foreigner
    );
    sql(&world.target, &position).await;
    let mut run = dedicated(&world);
    run.fail = Fail::stop_at("after_set_aside");
    steps(&run, &[Step::Guard]).await;
    assert!(run.step(Step::Copy).await.is_err());
    let now = definitions(&world.target).await;
    let of_positions = |all: &[String]| all.iter().filter(|d| d.contains("gps_positions")).count();
    assert_eq!(of_positions(&before), of_positions(&now), "{now:#?}");
    steps(&run, &[Step::Copy]).await;
    assert_eq!(before, definitions(&world.target).await);
}
