//! Where tenants may and may not live.

use std::collections::HashMap;

use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};

use super::StoreError;
use crate::decide::Region;
use crate::fleet::Rules;

const COLUMNS: &str = "tenant_id, pinned, near, only_in, apart";

fn rules(row: &Row) -> Result<(TenantId, Rules), StoreError> {
    let regions = |column: &str| -> Result<Vec<Region>, StoreError> {
        Ok(row.try_get::<_, Vec<String>>(column)?.into_iter().map(Region).collect())
    };
    let rules = Rules {
        pinned: row.try_get::<_, Option<Uuid>>("pinned")?.map(NodeId),
        near: regions("near")?,
        only: regions("only_in")?,
        apart: row.try_get("apart")?,
    };
    Ok((TenantId(row.try_get("tenant_id")?), rules))
}

/// The rules of every tenant that has some.
pub async fn all(client: &impl GenericClient) -> Result<HashMap<TenantId, Rules>, StoreError> {
    let sql = format!("select {COLUMNS} from placement_rules");
    client.query(&sql, &[]).await?.iter().map(rules).collect()
}

/// The rules of those of `tenants` that have some.
pub async fn of(
    client: &impl GenericClient,
    tenants: &[Uuid],
) -> Result<HashMap<TenantId, Rules>, StoreError> {
    let sql = format!("select {COLUMNS} from placement_rules where tenant_id = any($1)");
    client.query(&sql, &[&tenants]).await?.iter().map(rules).collect()
}

/// Sets a tenant's rules; empty ones are forgotten.
pub async fn set(
    client: &impl GenericClient,
    tenant: TenantId,
    rules: &Rules,
) -> Result<(), StoreError> {
    if *rules == Rules::default() {
        client.execute("delete from placement_rules where tenant_id = $1", &[&tenant.0]).await?;
        return Ok(());
    }
    let names = |regions: &[Region]| -> Vec<String> {
        regions.iter().map(|region| region.0.clone()).collect()
    };
    client
        .execute(
            "insert into placement_rules (tenant_id, pinned, near, only_in, apart)
             values ($1, $2, $3, $4, $5)
             on conflict (tenant_id) do update set
               pinned = excluded.pinned, near = excluded.near, only_in = excluded.only_in,
               apart = excluded.apart, set_at = now()",
            &[
                &tenant.0,
                &rules.pinned.map(|node| node.0),
                &names(&rules.near),
                &names(&rules.only),
                &rules.apart,
            ],
        )
        .await?;
    Ok(())
}

/// The nodes on which another tenant with one of `labels` lives, is promised a
/// place, moves in, or may come back to.
pub async fn nodes_with(
    client: &impl GenericClient,
    tenant: TenantId,
    labels: &[String],
) -> Result<Vec<NodeId>, StoreError> {
    let rows = client
        .query(
            "select distinct p.node_id from placement_rules r
             join placements p on p.tenant_id = r.tenant_id
             where r.apart && $2 and r.tenant_id <> $1
               and p.state in ('reserved', 'active', 'incoming', 'kept')",
            &[&tenant.0, &labels],
        )
        .await?;
    rows.iter().map(|row| Ok(NodeId(row.try_get(0)?))).collect()
}
