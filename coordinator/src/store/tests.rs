//! What is asked for again and again is read through an index, by the
//! database's own count of scans over a table with many rows of others.

use jiff::Timestamp;
use tokio_postgres::Client;
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::*;
use crate::decide::Mode;

/// 3,000 tenants with nine placements and four moves each; 20 that wait.
const FLEET: &str = "
    insert into nodes (id, name, kind, shape, region)
    select gen_random_uuid(), 'shared-' || n, 'shared', 'ax52', 'iad'
    from generate_series(1, 10) n;
    insert into tenants (id, slug, name, email, plan, state, host)
    select gen_random_uuid(), 't-' || n, 'T', 'a@example.com', 'hobby',
           case when n <= 3000 then 'active' else 'waiting' end, 't-' || n || '.example'
    from generate_series(1, 3020) n;
    insert into placements (tenant_id, node_id, mode, state, epoch, since, ended_at)
    select t.id, n.id, 'multi_tenant', case n.name when 'shared-1' then 'active' else 'ended' end,
           1, now() - interval '9 days', now()
    from tenants t, nodes n where t.state = 'active' and n.name <> 'shared-10';
    insert into moves (id, tenant_id, kind, source_node_id, reason, requested_by, state, epoch,
                       durable, ended_at)
    select gen_random_uuid(), t.id, 'lateral', n.id, 'why', 'who', 'completed', 1,
           '{\"revision\": 1, \"wanted\": {\"mode\": \"multi_tenant\", \"plan\": \"hobby\"}}', now()
    from tenants t, nodes n where t.state = 'active' and n.name in
      ('shared-1', 'shared-2', 'shared-3', 'shared-4');
";

/// Once the fleet is committed, and its places have their versions.
const PUBLISHED: &str = "
    insert into dns_records (host, tenant_id, version, published_at)
    select t.host, t.id, p.version, now() from tenants t join places p on p.tenant_id = t.id;
    insert into idempotency_keys (key, request)
    select 'key ' || n, '' from generate_series(1, 5000) n;
    analyze";

async fn scans(client: &Client, index: &str, table: &str) -> (i64, i64) {
    client.execute("select pg_stat_force_next_flush()", &[]).await.expect("flushes");
    let row = client
        .query_one(
            "select i.idx_scan, t.seq_scan
             from pg_stat_user_indexes i join pg_stat_user_tables t on t.relid = i.relid
             where i.indexrelname = $1 and t.relname = $2",
            &[&index, &table],
        )
        .await
        .unwrap_or_else(|error| panic!("{index} of {table}: {error}"));
    (row.get(0), row.get(1))
}

/// `$ask` is answered from `$index` of `$table`, and never reads the table from
/// one end to the other.
macro_rules! through {
    ($client:expr, $index:literal, $table:literal, $ask:expr) => {{
        let (through, whole) = scans($client, $index, $table).await;
        let answer = $ask.await.expect("answers");
        let (now_through, now_whole) = scans($client, $index, $table).await;
        assert!(now_through > through, "{} is not used", $index);
        assert_eq!(now_whole, whole, "{} is read as a whole beside {}", $table, $index);
        answer
    }};
}

#[tokio::test]
async fn what_is_asked_often_is_read_through_an_index() {
    let store = testing::database().await;
    let client = store.client().await.expect("a client");
    client.batch_execute(FLEET).await.expect("a fleet");
    client.batch_execute(PUBLISHED).await.expect("names");
    let tenant: Uuid =
        client.query_one("select id from tenants limit 1", &[]).await.expect("one").get(0);
    let tenant = TenantId(tenant);
    let client: &Client = &client;

    through!(client, "placements_of_tenant", "placements", placements::of_tenant(client, tenant));
    through!(
        client,
        "placements_of_tenant",
        "placements",
        placements::in_mode_since(client, tenant, Mode::MultiTenant)
    );
    through!(
        client,
        "placements_to_expire",
        "placements",
        placements::expire_reserved(client, Timestamp::now())
    );
    through!(client, "moves_of_tenant", "moves", moves::last_plan(client, tenant));
    let which = moves::Which { tenant: Some(tenant), ..moves::Which::default() };
    let listed = through!(client, "moves_of_tenant", "moves", moves::list(client, which, 100));
    assert_eq!(listed.len(), 4);
    let page = through!(client, "tenants_waiting", "tenants", tenants::waiting(client, None, 15));
    assert_eq!(page.len(), 15);
    let after = page.last().copied();
    let rest = through!(client, "tenants_waiting", "tenants", tenants::waiting(client, after, 15));
    assert_eq!(rest.len(), 5);
    assert!(rest.iter().all(|turn| !page.contains(turn)), "{page:?} {rest:?}");
    through!(client, "tenants_unnamed", "tenants", places::name_hosts(client, "example"));
    let latest = places::latest(client).await.expect("a version");
    let last = through!(
        client,
        "places_version_key",
        "places",
        places::dns_changes(client, latest - 1, 100)
    );
    assert_eq!(last, [(latest, None)], "it was published");
    through!(client, "dns_failed", "dns_records", places::dns_failed(client, 100));
    through!(client, "idempotency_by_age", "idempotency_keys", idempotency::forget(client, 7));
}
