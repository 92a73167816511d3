//! Decisions, each with everything that the engine saw and answered.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use super::StoreError;
use super::text::text_enum;

text_enum!(
    /// What made the engine look.
    Trigger, "trigger" {
        Signup = "signup",
        Schedule = "schedule",
        Limit = "limit",
        Admin = "admin",
        PlanChange = "plan_change",
    }
);

text_enum!(
    /// What came of it.
    Outcome, "outcome" {
        Placed = "placed",
        Stay = "stay",
        Migrate = "migrate",
        /// No node was free.
        Unplaced = "unplaced",
    }
);

/// Writes a decision; answers its id.
pub async fn insert(
    client: &impl GenericClient,
    tenant: TenantId,
    trigger: Trigger,
    inputs: &serde_json::Value,
    decision: &serde_json::Value,
    outcome: Outcome,
) -> Result<Uuid, StoreError> {
    let id = Uuid::now_v7();
    client
        .execute(
            "insert into decisions (id, tenant_id, trigger, inputs, decision, outcome)
             values ($1, $2, $3, $4, $5, $6)",
            &[&id, &tenant.0, &trigger, &inputs, &decision, &outcome],
        )
        .await?;
    Ok(id)
}

/// One row of `decisions`.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = DecisionRecord)]
pub struct Recorded {
    pub id: Uuid,
    #[schema(value_type = String)]
    pub tenant_id: TenantId,
    #[schema(value_type = String)]
    pub at: Timestamp,
    pub trigger: Trigger,
    #[schema(value_type = Object)]
    pub inputs: serde_json::Value,
    #[schema(value_type = Object)]
    pub decision: serde_json::Value,
    pub outcome: Outcome,
}

const COLUMNS: &str = "id, tenant_id, at, trigger, inputs, decision, outcome";

fn recorded(row: &Row) -> Result<Recorded, StoreError> {
    Ok(Recorded {
        id: row.try_get("id")?,
        tenant_id: TenantId(row.try_get("tenant_id")?),
        at: row.try_get("at")?,
        trigger: row.try_get("trigger")?,
        inputs: row.try_get("inputs")?,
        decision: row.try_get("decision")?,
        outcome: row.try_get("outcome")?,
    })
}

/// Up to `limit` decisions before `before` (newest first), of one tenant when
/// it is given.
pub async fn list(
    client: &impl GenericClient,
    tenant: Option<TenantId>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Recorded>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from decisions
         where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or id < $2)
         order by id desc limit $3"
    );
    let rows = client.query(&sql, &[&tenant.map(|id| id.0), &before, &limit]).await?;
    rows.iter().map(recorded).collect()
}

/// The newest decision about a tenant.
pub async fn latest(
    client: &impl GenericClient,
    tenant: TenantId,
) -> Result<Option<Recorded>, StoreError> {
    let sql = format!(
        "select {COLUMNS} from decisions where tenant_id = $1 order by at desc, id desc limit 1"
    );
    client.query_opt(&sql, &[&tenant.0]).await?.as_ref().map(recorded).transpose()
}
