//! The command ListTenants: who lives in this database already, so that a
//! server that was there before the coordinator can be adopted.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use tokio_postgres::Client;
use uuid::Uuid;
use webhost_proto::ids::TenantId;
use webhost_proto::wire::{self, command, command_reply};

use super::catalog::{Catalog, quote};
use super::session::{Session, describe};
use super::survey::Survey;
use crate::command::Handler;
use crate::config::Postgres;

/// Adoption may take its time; the connection is its own.
const LIMIT: Duration = Duration::from_secs(60);
const STATEMENT_MS: u32 = 30_000;

/// Answers ListTenants from the tenants' database.
pub struct ListTenants {
    config: Option<Postgres>,
}

impl ListTenants {
    /// `config`: the section `[postgres]`, if there is one.
    pub fn new(config: Option<Postgres>) -> Self {
        Self { config }
    }

    async fn list(&self) -> Result<wire::TenantList, (wire::FailureKind, String)> {
        let refused = |message: &str| (wire::FailureKind::Refused, message.to_owned());
        let Some(config) = &self.config else {
            return Err(refused("this node has no [postgres] section, so it carries no tenants"));
        };
        let list = tokio::time::timeout(LIMIT, tenants(config))
            .await
            .map_err(|_| {
                let message = format!("the database gave no answer within {} s", LIMIT.as_secs());
                (wire::FailureKind::Retry, message)
            })?
            .map_err(|message| (wire::FailureKind::Retry, message))?;
        // Room for the envelope: a message that is too large would end the
        // session instead of answering.
        if list.encoded_len() + 1024 > webhost_proto::MAX_MESSAGE_BYTES {
            return Err((
                wire::FailureKind::Refused,
                format!("{} tenants do not fit into one message", list.tenants.len()),
            ));
        }
        Ok(list)
    }
}

#[tonic::async_trait]
impl Handler for ListTenants {
    async fn handle(
        &self,
        _command: command::Kind,
        _progress: watch::Sender<Option<wire::MoveProgress>>,
    ) -> command_reply::Outcome {
        match self.list().await {
            Ok(list) => command_reply::Outcome::TenantList(list),
            Err((kind, message)) => command_reply::Outcome::Failed(wire::Failed {
                kind: kind.into(),
                message,
                preflight: None,
            }),
        }
    }
}

/// Every tenant that lives in the database of `config`, by id: those whose
/// fence sends their writers elsewhere are left out.
///
/// # Errors
/// A sentence.
pub async fn tenants(config: &Postgres) -> Result<wire::TenantList, String> {
    let session = Session::open(config, STATEMENT_MS).await?;
    let client = &session.client;
    let catalog = Catalog::read(client, None).await?;
    let own = &catalog.own;
    let mut listed = BTreeMap::new();
    let statement =
        format!("select {}, {}, {}, {} from {}", own.key, own.slug, own.name, own.email, own.sql);
    for row in client.query(&statement, &[]).await.map_err(|error| describe(&error))? {
        let id: Uuid = row.get(0);
        let tenant = wire::ListedTenant {
            tenant_id: id.as_bytes().to_vec(),
            slug: row.get(1),
            name: row.get(2),
            email: row.get(3),
            ..wire::ListedTenant::default()
        };
        listed.insert(TenantId(id), tenant);
    }
    let ids: Vec<TenantId> = listed.keys().copied().collect();
    let survey = Survey::take(client, &catalog, &ids).await?;
    for (id, bytes) in survey.storage {
        if let Some(tenant) = listed.get_mut(&id) {
            tenant.storage_bytes = bytes;
        }
    }
    for (id, count) in survey.vehicles.unwrap_or_default() {
        if let Some(tenant) = listed.get_mut(&id) {
            tenant.vehicles = count;
        }
    }
    for (id, plan) in plans(client, &catalog).await? {
        if let Some(tenant) = listed.get_mut(&id) {
            tenant.plan = plan;
        }
    }
    for id in super::elsewhere(&session).await? {
        listed.remove(&id);
    }
    Ok(wire::TenantList { tenants: listed.into_values().collect() })
}

/// Each tenant's plan: from a table of subscriptions with a column `plan` or
/// `plan_id`, the newest one, an active one before others. Where the plan's id
/// is a UUID, the plan's own table names it.
async fn plans(client: &Client, catalog: &Catalog) -> Result<Vec<(TenantId, String)>, String> {
    let refused = |error: tokio_postgres::Error| describe(&error);
    let Some(table) = catalog.tables.iter().find(|table| table.name == "subscriptions") else {
        return Ok(Vec::new());
    };
    let columns: BTreeMap<String, String> = client
        .query(
            "select a.attname::text, pg_catalog.format_type(a.atttypid, null)
             from pg_catalog.pg_attribute a
             where a.attrelid = pg_catalog.to_regclass($1) and a.attnum > 0 and not a.attisdropped",
            &[&table.sql],
        )
        .await
        .map_err(refused)?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let has = |name: &str| columns.contains_key(name);
    let Some(plan) = ["plan", "plan_id"].into_iter().find(|name| has(name)) else {
        return Ok(Vec::new());
    };
    let mut value = format!("s.{}::text", quote(plan));
    let mut join = String::new();
    if columns.get(plan).is_some_and(|kind| kind == "uuid") {
        let named = client
            .query_opt(
                "select n.nspname::text, c.relname::text, k.attname::text, v.attname::text
                 from pg_catalog.pg_constraint f
                 join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and f.conkey = array[a.attnum]
                 join pg_catalog.pg_class c on c.oid = f.confrelid
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                 join pg_catalog.pg_attribute k on k.attrelid = c.oid and k.attnum = f.confkey[1]
                 join pg_catalog.pg_attribute v on v.attrelid = c.oid and v.attname in ('slug', 'name')
                 where f.contype = 'f' and f.conrelid = pg_catalog.to_regclass($1) and a.attname = $2
                 order by v.attname desc limit 1",
                &[&table.sql, &plan],
            )
            .await
            .map_err(refused)?;
        if let Some(row) = named {
            let [schema, name, key, text] = [0, 1, 2, 3].map(|at| quote(row.get(at)));
            value = format!("lower(p.{text}::text)");
            join = format!("join {schema}.{name} p on p.{key} = s.{}", quote(plan));
        }
    }
    let active = if has("status") { "(s.status::text = 'active') desc," } else { "" };
    let newest = ["inserted_at", "created_at"]
        .into_iter()
        .find(|name| has(name))
        .map_or_else(|| "1".to_owned(), |name| format!("s.{} desc nulls last", quote(name)));
    let statement = format!(
        "select distinct on (s.customer_id) s.customer_id, coalesce({value}, '')
         from {} s {join} where s.customer_id is not null
         order by s.customer_id, {active} {newest}",
        table.sql
    );
    let rows = client.query(&statement, &[]).await.map_err(refused)?;
    Ok(rows.iter().map(|row| (TenantId(row.get(0)), row.get(1))).collect())
}
