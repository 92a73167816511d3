//! A small fleet on a real database, for the tests of the rooms that work on
//! one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use webhost_proto::ids::{NodeId, TenantId};
use webhost_proto::wire;

use crate::decide::Catalog;
use crate::decide::plans::NodeKind;
use crate::link::{NodeEvents, Signal};
use crate::signup::{Desk, SignupRequest};
use crate::slots::Slots;
use crate::store::Store;
use crate::store::testing::database;
use crate::usage::Book;
use crate::usage::ingest::Ingest;

/// A desk over an empty database.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) desk: Desk,
    pub(crate) book: Arc<Book>,
    pub(crate) ingest: Ingest,
    // Dropped last: the writer of reports ends with its set.
    _tasks: tokio::task::JoinSet<()>,
}

/// The seeds' catalogue, with `slots` tenants on an AX52.
pub(crate) fn catalog(slots: u32) -> Catalog {
    let mut catalog = Catalog::default();
    for shape in &mut catalog.shapes {
        if shape.kind == NodeKind::Shared {
            shape.max_tenants = slots;
        }
    }
    catalog
}

impl World {
    pub(crate) async fn new(catalog: Catalog) -> Self {
        Self::over(database().await, catalog)
    }

    /// As a coordinator that starts on `store`.
    pub(crate) fn over(store: Store, catalog: Catalog) -> Self {
        let book = Arc::new(Book::new(Duration::from_secs(300)));
        let desk = Desk {
            store: store.clone(),
            slots: Slots {
                book: book.clone(),
                catalog: Arc::new(catalog),
                silence: SignedDuration::from_secs(60),
            },
            mode: None,
            reservation: SignedDuration::from_hours(24),
            reserved_slugs: Arc::new(BTreeSet::from(["admin".to_owned()])),
            changed: Signal::default(),
            queue: crate::signup::Queue::default(),
        };
        let (ingest, writer) = Ingest::new(store.clone(), book.clone(), desk.changed.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(writer.run(tokio_util::sync::CancellationToken::new()));
        Self { store, desk, book, ingest, _tasks: tasks }
    }

    /// A node whose agent is connected.
    pub(crate) async fn node(&self, name: &str, kind: NodeKind) -> NodeId {
        let id = NodeId::generate();
        let shape = self
            .desk
            .slots
            .catalog
            .shapes
            .iter()
            .filter(|shape| shape.kind == kind)
            .max_by_key(|shape| shape.memory_mb)
            .expect("a shape of that kind");
        self.execute(&format!(
            "insert into nodes (id, name, kind, shape, region)
             values ('{id}', '{name}', '{}', '{}', 'iad')",
            kind.as_str(),
            shape.name
        ))
        .await;
        self.ingest.connected(id, &hello()).await.expect("connects");
        id
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.store.client().await.expect("a client").batch_execute(sql).await.expect("runs");
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let client = self.store.client().await.expect("a client");
        client.query_one(sql, &[]).await.expect("counts").get(0)
    }

    /// Signs a tenant up; answers its id and the body.
    pub(crate) async fn sign_up(&self, body: Value) -> (TenantId, Value) {
        let request: SignupRequest = serde_json::from_value(body).expect("a request");
        let (status, body) =
            self.desk.sign_up(&request, "token test", None).await.expect("signs up");
        assert_eq!(status, 201);
        let id = body["customer_id"].as_str().expect("an id").parse().expect("a UUID");
        (id, body)
    }
}

/// A signup that belongs on a shared node.
pub(crate) fn small(slug: &str) -> Value {
    json!({
        "name": slug, "slug": slug, "email": "a@example.com", "plan": "hobby",
        "profile_overrides": { "budget": 30, "vehicle_count": 3, "latency_requirement": 150 },
    })
}

/// A signup that belongs on a node of its own.
pub(crate) fn large(slug: &str) -> Value {
    json!({
        "name": slug, "slug": slug, "email": "a@example.com", "plan": "starter",
        "profile_overrides": { "vehicle_count": 15, "compliance_requirements": ["soc2"] },
    })
}

/// What an agent says first.
pub(crate) fn hello() -> wire::Hello {
    wire::Hello {
        protocol_version: 1,
        agent_version: "1.2.3".into(),
        boot_id: "boot".into(),
        capabilities: Vec::new(),
        capacity: None,
        tunnel_address: "127.0.0.1:7403".into(),
    }
}

/// A report of GPS points and vehicles, one pair a tenant.
pub(crate) fn report(sequence: u64, tenants: &[(TenantId, u64, u64)]) -> wire::Report {
    let column = |metric: wire::Metric, values: Vec<u64>| wire::Column {
        metric: metric.into(),
        basis: wire::Basis::Measured.into(),
        present: Vec::new(),
        values,
        ..wire::Column::default()
    };
    wire::Report {
        epoch: 1,
        sequence,
        collected_at_us: jiff::Timestamp::now().as_microsecond(),
        interval_ms: 5000,
        dictionary_version: 1,
        dictionary: Some(wire::TenantDictionary {
            version: 1,
            tenants: tenants
                .iter()
                .map(|(id, ..)| wire::DictionaryTenant {
                    tenant_id: id.to_wire(),
                    slug: String::new(),
                })
                .collect(),
        }),
        host: Some(wire::HostSample {
            cpu_count: 2,
            cpu_busy_us: 5_000_000,
            memory_total_bytes: 8 << 30,
            memory_used_bytes: 1 << 30,
            ..Default::default()
        }),
        columns: vec![
            column(wire::Metric::GpsPoints, tenants.iter().map(|t| t.1).collect()),
            column(wire::Metric::Vehicles, tenants.iter().map(|t| t.2).collect()),
        ],
        sources: Vec::new(),
        ..wire::Report::default()
    }
}
