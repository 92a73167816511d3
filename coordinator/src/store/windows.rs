//! When moves may begin: the windows of tenants and of nodes.

use tokio_postgres::GenericClient;
use uuid::Uuid;
use webhost_proto::ids::{NodeId, TenantId};

use super::StoreError;
use crate::moves::schedule::Calendar;
use crate::moves::window::Window;

/// Whose windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A tenant's.
    Tenant(TenantId),
    /// A node's.
    Node(NodeId),
}

impl Whose {
    const fn ids(self) -> (Option<Uuid>, Option<Uuid>) {
        match self {
            Self::Tenant(id) => (Some(id.0), None),
            Self::Node(id) => (None, Some(id.0)),
        }
    }
}

fn parsed(text: &str) -> Result<Window, StoreError> {
    text.parse().map_err(|error: crate::moves::window::NoWindow| StoreError::Corrupt {
        what: "move_windows.opens",
        detail: error.to_string(),
    })
}

/// The windows of one; none where it may be moved at any time.
pub async fn of(client: &impl GenericClient, whose: Whose) -> Result<Vec<Window>, StoreError> {
    let (tenant, node) = whose.ids();
    let rows = client
        .query(
            "select opens from move_windows where tenant_id = $1 or node_id = $2 order by opens",
            &[&tenant, &node],
        )
        .await?;
    rows.iter().map(|row| parsed(row.try_get(0)?)).collect()
}

/// Every node that has windows, with one of them a row.
pub async fn of_nodes(client: &impl GenericClient) -> Result<Vec<(NodeId, Window)>, StoreError> {
    let sql = "select node_id, opens from move_windows where node_id is not null";
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((NodeId(row.try_get(0)?), parsed(row.try_get(1)?)?))).collect()
}

/// The windows of all that have any.
pub async fn all(client: &impl GenericClient) -> Result<Calendar, StoreError> {
    let rows = client.query("select tenant_id, node_id, opens from move_windows", &[]).await?;
    let mut calendar = Calendar::default();
    for row in &rows {
        let window = parsed(row.try_get(2)?)?;
        if let Some(id) = row.try_get::<_, Option<Uuid>>(0)? {
            calendar.tenants.entry(TenantId(id)).or_default().push(window);
        } else if let Some(id) = row.try_get::<_, Option<Uuid>>(1)? {
            calendar.nodes.entry(NodeId(id)).or_default().push(window);
        }
    }
    Ok(calendar)
}

/// Replaces the windows of one that exists.
pub async fn set(
    client: &impl GenericClient,
    whose: Whose,
    windows: &[Window],
) -> Result<(), StoreError> {
    let (tenant, node) = whose.ids();
    let texts: Vec<String> = windows.iter().map(ToString::to_string).collect();
    client
        .execute("delete from move_windows where tenant_id = $1 or node_id = $2", &[&tenant, &node])
        .await?;
    client
        .execute(
            "insert into move_windows (tenant_id, node_id, opens)
             select $1, $2, opens from unnest($3::text[]) opens on conflict do nothing",
            &[&tenant, &node, &texts],
        )
        .await?;
    Ok(())
}
