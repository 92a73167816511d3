//! What the evaluation reads of all tenants at once, and the mark that makes
//! one evaluation count.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};

use super::StoreError;
use super::leases::Lease;
use super::moves::SETTLED;
use super::placements::{self, Placement};
use super::tenants::Tenant;
use crate::moves::state::{State, UnknownState};

/// An active tenant that may be due.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Which.
    pub tenant: TenantId,
    /// What it bought.
    pub plan: String,
    /// None: never, or plan or profile changed since.
    pub evaluated_at: Option<Timestamp>,
    /// What it had bought when it was decided about last.
    pub decided_plan: Option<String>,
    /// Where it lives.
    pub home: Placement,
    /// How many tenants live there, itself included.
    pub tenants_on_node: u32,
    /// Where its open move is, if it has one; the leftovers of an earlier one
    /// are none.
    pub open_move: Option<State>,
}

/// Every active tenant that lives somewhere, those first whose last evaluation
/// is the oldest.
pub async fn candidates(client: &impl GenericClient) -> Result<Vec<Candidate>, StoreError> {
    let sql = format!(
        "select t.id, t.plan, t.evaluated_at, m.state,
                    case when t.evaluated_at is null then
                      (select d.decision->>'bought_plan' from decisions d
                       where d.tenant_id = t.id order by d.at desc, d.id desc limit 1) end
             from tenants t
             left join moves m on m.tenant_id = t.id and m.ended_at is null
                              and m.state not in {SETTLED}
             where t.state = 'active'
             order by t.evaluated_at nulls first, t.id"
    );
    let rows = client.query(&sql, &[]).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let mut homes: HashMap<TenantId, Placement> = placements::homes(client, &ids)
        .await?
        .into_iter()
        .filter(|home| home.state == placements::PlacementState::Active)
        .map(|home| (home.tenant_id, home))
        .collect();
    let mut on_node: HashMap<NodeId, u32> = HashMap::new();
    for home in homes.values() {
        *on_node.entry(home.node_id).or_default() += 1;
    }
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let tenant = TenantId(row.try_get(0)?);
        let Some(home) = homes.remove(&tenant) else { continue };
        let state: Option<String> = row.try_get(3)?;
        let open_move =
            state.map(|state| state.parse()).transpose().map_err(|error: UnknownState| {
                StoreError::Corrupt { what: "moves.state", detail: error.to_string() }
            })?;
        found.push(Candidate {
            tenant,
            plan: row.try_get(1)?,
            evaluated_at: row.try_get(2)?,
            decided_plan: row.try_get(4)?,
            tenants_on_node: on_node.get(&home.node_id).copied().unwrap_or(1),
            home,
            open_move,
        })
    }
    Ok(found)
}

/// Marks `tenant`, as it was read, as evaluated at `now`; false, and nothing
/// written, when it was evaluated since, or when `lease` has another holder.
pub async fn mark(
    client: &impl GenericClient,
    tenant: &Tenant,
    lease: Option<&Lease>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (name, epoch) = (lease.map(|lease| &lease.name), lease.map(|lease| lease.epoch));
    let marked = client
        .execute(
            "update tenants set evaluated_at = $2
             where id = $1 and evaluated_at is not distinct from $3
               and ($4::text is null or exists
                    (select 1 from leases where name = $4 and epoch = $5))",
            &[&tenant.id.0, &now, &tenant.evaluated_at, &name, &epoch],
        )
        .await?;
    Ok(marked == 1)
}
