//! Watching over the nodes that are drained: what couldn't be asked for at once
//! is, when it can be, and somebody is told when a deadline will be missed.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use webhost_proto::ids::TenantId;

use super::{Drain, DrainError, Leaving, look};
use crate::evaluate::carry;
use crate::fleet::plan;
use crate::moves::Rules;
use crate::slots::Slots;
use crate::store::audit::{self, Entry};
use crate::store::nodes::{self, Node, NodeState};
use crate::store::{Store, StoreError};

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(60);
/// So many tenants of a kind are named.
const NAMED: usize = 20;
/// Who asks for moves that had to wait.
const ACTOR: &str = "system";

/// A tenant whose move away from a drained node can't be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Refused {
    tenant: TenantId,
    why: String,
}

/// Asks, once a tenant and drain, for the moves that something kept from being
/// asked for when a node was drained; and tells somebody, once a deadline, that
/// it will not be met unless a person does something, and once more if it has
/// come and was not.
pub struct Watch {
    /// The state database.
    pub store: Store,
    /// What tenants take, and where they fit.
    pub slots: Slots,
    /// What moves are held to.
    pub rules: Rules,
}

impl Watch {
    /// Looks until `shutdown`.
    pub async fn run(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            if let Err(error) = self.tick(Timestamp::now()).await {
                warn!(%error, "nodes that are to be empty can't be looked at");
            }
        }
    }

    /// Looks at every node that has to be; answers of how many somebody is told
    /// now. Of two coordinators one tells it.
    ///
    /// # Errors
    /// When the nodes can't be read. What is wrong with one is logged and keeps
    /// none of the others.
    pub async fn tick(&self, now: Timestamp) -> Result<usize, StoreError> {
        let nodes = nodes::to_be_empty(&**self.store.client().await?, now).await?;
        let mut told = 0;
        for node in nodes {
            match self.look_at(&node, now).await {
                Ok(is_told) => told += usize::from(is_told),
                Err(error) => warn!(node = %node.name, %error, "a drain can't be looked at"),
            }
        }
        Ok(told)
    }

    async fn look_at(&self, node: &Node, now: Timestamp) -> Result<bool, StoreError> {
        let client = self.store.client().await?;
        let found = look(&**client, &self.slots, &self.rules, node.id, node.drain_by, now).await;
        drop(client);
        match found {
            Ok((drain, steps)) => {
                let refused = self.ask(node, &drain, &steps, now).await?;
                if drain.late == 0 && refused.is_empty() {
                    return Ok(false);
                }
                let mut detail = detail(&drain);
                if let Value::Object(detail) = &mut detail {
                    detail.insert("refused".into(), json!(refused));
                }
                self.tell(node, detail, now).await
            }
            Err(DrainError::Store(error)) => Err(error),
            // No plan, no foresight: that is as bad as being late.
            Err(error) => {
                warn!(node = %node.name, %error, "a drain can't be planned");
                self.tell(node, json!({ "why": error.to_string() }), now).await
            }
        }
    }

    /// Asks for the moves that could not be asked for before. Whose move was, and
    /// has ended without it having left, is left to a person; and so is a node
    /// that is not drained any more. Answers those whose move was refused, and
    /// why: a person has to do something about them.
    pub(super) async fn ask(
        &self,
        node: &Node,
        drain: &Drain,
        steps: &[plan::Move],
        now: Timestamp,
    ) -> Result<Vec<Refused>, StoreError> {
        let mut refused = Vec::new();
        // Who drains it asks for most of them in that minute.
        let period = jiff::SignedDuration::try_from(PERIOD).unwrap_or_default();
        if node.drain_moves_from.is_none_or(|from| now.duration_since(from) < period) {
            return Ok(refused);
        }
        let is_free = |one: &&Leaving| one.move_id.is_none() && one.why.is_none();
        let free: Vec<_> = drain.tenants.iter().filter(is_free).map(|one| one.tenant).collect();
        for step in steps.iter().filter(|step| free.contains(&step.tenant)) {
            let home = nodes::get(&**self.store.client().await?, node.id).await?;
            let still =
                |home: &Node| home.state == NodeState::Draining && home.drain_moves_from.is_some();
            if !home.as_ref().is_some_and(still) {
                info!(node = %node.name, "it is not drained any more; no more moves are asked for");
                return Ok(refused);
            }
            let one = std::slice::from_ref(step);
            for (tenant, answer) in carry(&self.store, &self.slots, one, ACTOR).await {
                match answer {
                    Ok(move_id) => {
                        info!(node = %node.name, %tenant, %move_id, "a drain goes on");
                    }
                    Err(error) => {
                        warn!(node = %node.name, %tenant, %error,
                            "a move of a drain can't be asked for");
                        refused.push(Refused { tenant, why: error.to_string() });
                    }
                }
            }
        }
        Ok(refused)
    }

    /// Tells what is wrong with a drain by a time, once.
    async fn tell(&self, node: &Node, detail: Value, now: Timestamp) -> Result<bool, StoreError> {
        let Some(by) = node.drain_by else { return Ok(false) };
        let mut client = self.store.client().await?;
        let tx = client.transaction().await?;
        if !nodes::told_of_drain(&*tx, node.id, by, now).await? {
            return Ok(false);
        }
        let mut told = json!({ "by": by });
        if let (Value::Object(told), Value::Object(detail)) = (&mut told, detail) {
            told.extend(detail);
        }
        warn!(node = %node.name, %by, detail = %told, "a node will not be empty by its time");
        let entry = Entry {
            actor: ACTOR,
            action: "node.drain_late",
            subject: "node",
            subject_id: node.id.to_string(),
            detail: told,
        };
        audit::record(&*tx, &entry).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Who is late, and why, apart from who only waits.
fn detail(drain: &Drain) -> Value {
    let named = |wanted: fn(&Leaving) -> bool| -> Vec<Value> {
        let of = drain.tenants.iter().filter(|one| wanted(one)).take(NAMED);
        let named = |one: &Leaving| json!({ "tenant": one.slug, "ends": one.ends, "why": one.why, "until": one.until });
        of.map(named).collect()
    };
    json!({
        "ends": drain.ends,
        "late": drain.late,
        "waiting": drain.waiting,
        "of": drain.tenants.len(),
        "tenants": named(|one| one.late),
        "waiting_tenants": named(|one| !one.late && one.until.is_some()),
    })
}
