use super::*;
use crate::store::testing;

/// Of every table rows of 100 and of 3 days ago, and of each kind that must
/// stay one that is old.
const ROWS: &str = "
    insert into nodes (id, name, kind, shape, region)
    values (gen_random_uuid(), 'n', 'shared', 'ax52', 'fra');
    insert into tenants (id, slug, name, email, plan)
    select gen_random_uuid(), 't' || n, 't', 'a@example.com', 'hobby' from generate_series(1, 2) n;
    create temp table ages as select now() - make_interval(days => d) as at, n
    from unnest(array[100, 3]) d, generate_series(1, 5) n;
    insert into decisions (id, tenant_id, at, trigger, inputs, decision, outcome)
    select gen_random_uuid(), t.id, a.at, 'schedule', '{}', '{}', 'stay'
    from ages a, tenants t where t.slug = 't1';
    insert into moves (id, tenant_id, kind, source_node_id, decision_id, reason, requested_by,
                       state, epoch, created_at, ended_at)
    select gen_random_uuid(), t.id, 'lateral', n.id,
           (select id from decisions where at < now() - interval '50 days' limit 1), 'r', 's',
           case t.slug when 't1' then 'completed' else 'copy' end, 1,
           now() - interval '100 days',
           case t.slug when 't1' then now() - interval '99 days' end
    from tenants t, nodes n;
    insert into move_events (move_id, at, state, message)
    select m.id, a.at, 'copy', 'm' from moves m, ages a;
    insert into commands (id, node_id, move_id, body, created_at, expires_at)
    select gen_random_uuid(), n.id, m.id, '', a.at, a.at + interval '1 hour'
    from nodes n, moves m, ages a;
    insert into commands (id, node_id, body, created_at, expires_at)
    select gen_random_uuid(), n.id, '', now() - interval '100 days', now() + interval '1 day'
    from nodes n;
    insert into usage_hourly (tenant_id, node_id, hour)
    select t.id, n.id, a.at + make_interval(mins => a.n) from tenants t, nodes n, ages a;
    insert into join_tokens (sha256, node_name, kind, shape, region, created_by, expires_at)
    select decode(md5(a.at::text || a.n), 'hex'), 'n', 'shared', 'ax52', 'fra', 's', a.at
    from ages a;
    insert into audit (at, actor, action, subject, subject_id)
    select a.at, 's', 'a', 'tenant', 'x' from ages a;";

#[tokio::test]
async fn what_is_old_goes_a_little_at_a_time_and_what_is_needed_stays() {
    let store = testing::database().await;
    store.client().await.expect("a client").batch_execute(ROWS).await.expect("rows");
    let now = Timestamp::now();
    let kept = Records {
        decisions_days: 30,
        commands_days: 30,
        move_events_days: 30,
        usage_hourly_days: 30,
        join_tokens_days: 30,
        audit_days: 0,
    };
    let keeper = Keeper { at_once: 2, pause: Duration::ZERO, ..Keeper::new(store.clone(), kept) };
    let deleted = keeper.tick(now).await.expect("deletes");
    // One old decision is a move's; the events and commands of the move that
    // goes on stay, and so does a command that may still be answered.
    assert_eq!(
        deleted,
        [
            (Old::Commands, 5),
            (Old::MoveEvents, 5),
            (Old::Decisions, 4),
            (Old::UsageHourly, 10),
            (Old::JoinTokens, 5),
            (Old::Audit, 0),
        ]
    );
    let client = store.client().await.expect("a client");
    for (table, left) in [
        ("commands", 16_i64),
        ("move_events", 15),
        ("decisions", 6),
        ("usage_hourly", 10),
        ("join_tokens", 5),
        ("audit", 10),
        ("moves", 2),
    ] {
        let sql = format!("select count(*) from {table}");
        let count: i64 = client.query_one(&sql, &[]).await.expect("counts").get(0);
        assert_eq!(count, left, "{table}");
    }
    let again = keeper.tick(now).await.expect("deletes");
    assert!(again.iter().all(|(_, deleted)| *deleted == 0), "{again:?}");
    let all = Keeper::new(store.clone(), Records { audit_days: 30, ..kept });
    let deleted = all.tick(now).await.expect("deletes");
    assert_eq!(deleted.last(), Some(&(Old::Audit, 5)));
}
