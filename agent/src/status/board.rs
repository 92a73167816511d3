//! Where the running agent keeps its status: the parts of the agent write
//! their own section, the socket hands out the whole.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::time::Instant;
use webhost_proto::ids::TenantId;
use webhost_proto::wire;

use super::document::{
    Database, Document, Figure, Groups, Health, Host, Mount, Pressure, Redis, SCHEMA, Shared,
    Source, Tenant,
};
use super::history::History;
use super::machine;
use crate::collect::round::{Round, TenantRound};

/// A round that is this many intervals late is a problem.
const LATE_ROUNDS: u32 = 4;

/// Cheap to clone; all clones are the same board.
#[derive(Clone)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
}

/// Fills in a section when the status is asked for.
type Probe = Box<dyn Fn(&mut Document) + Send>;

struct Inner {
    document: Document,
    probes: Vec<Probe>,
    last_round: Option<Instant>,
    started: Instant,
    enabled_link: bool,
    history: History,
}

impl Board {
    /// The status of an agent that has just started.
    pub fn new(coordinator: &str, interval_ms: u32) -> Self {
        let mut document = Document {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started_at: Timestamp::now().to_string(),
            interval_ms,
            ..Document::default()
        };
        document.connection.state = "off".into();
        document.connection.coordinator = coordinator.into();
        let inner = Inner {
            document,
            probes: Vec::new(),
            last_round: None,
            started: Instant::now(),
            enabled_link: false,
            history: History::default(),
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Changes the document. Not held across an await; a panic of another
    /// writer leaves a document that is still one.
    pub fn update(&self, change: impl FnOnce(&mut Document)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner).document);
    }

    /// Has `probe` fill in its section whenever the status is asked for. It
    /// must not block, nor touch this board.
    pub fn probe(&self, probe: impl Fn(&mut Document) + Send + 'static) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.probes.push(Box::new(probe));
    }

    /// From now on the link counts: not being connected is a problem.
    pub fn expect_link(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).enabled_link = true;
    }

    /// Takes a finished round. `ages_ms` are the sources', in the report's
    /// order.
    pub fn round(&self, round: &Round, ages_ms: &[Option<u64>]) {
        let interval_ms = u64::from(round.report.interval_ms.max(1));
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last_round = Some(Instant::now());
        let document = &mut inner.document;
        document.round_at =
            Timestamp::from_microsecond(round.report.collected_at_us).ok().map(|at| at.to_string());
        document.sources = round
            .report
            .sources
            .iter()
            .enumerate()
            .map(|(index, source)| Source {
                name: source.source.clone(),
                state: state(source.state()).into(),
                message: source.message.clone(),
                age_ms: ages_ms.get(index).copied().flatten(),
            })
            .collect();
        let host = &round.report.host;
        document.host = Host {
            cpu_count: host.cpu_count,
            // Microseconds of CPU in a millisecond are thousandths of a core.
            cpu_milli: host.cpu_busy_us / interval_ms,
            load_1m_milli: host.load_1m_milli,
            memory_total_bytes: host.memory_total_bytes,
            memory_used_bytes: host.memory_used_bytes,
            disk_total_bytes: host.disk_total_bytes,
            disk_used_bytes: host.disk_used_bytes,
            db_connections: host.db_connections,
            uptime_s: host.uptime_s,
            pressure: host.pressure.map(Pressure::of),
            mounts: round.report.mounts.iter().map(Mount::of).collect(),
        };
        document.database = round.server.as_ref().map(|read| Database::of(&read.sample));
        document.shared = round
            .shared
            .iter()
            .map(|process| Shared {
                name: process.name.clone(),
                cpu_milli: process.cpu_us / interval_ms,
                cpu_idle_milli: process.cpu_idle_us / interval_ms,
                memory_bytes: process.memory_bytes,
            })
            .collect();
        document.tenants = round
            .tenants
            .iter()
            .map(|(id, values)| tenant(id.to_string(), values, interval_ms, round.storage_measured))
            .collect();
        for shown in &mut document.tenants {
            let access = round.access.as_ref().zip(shown.id.parse::<TenantId>().ok());
            let Some(seen) = access.and_then(|(access, id)| access.tenants.get(&id)) else {
                continue;
            };
            shown.p50_response_us = seen.recent.quantile_us(500);
            shown.p99_response_us = seen.recent.quantile_us(990);
            shown.countries.clone_from(&seen.countries);
        }
        document.health = round
            .checks
            .as_ref()
            .map(|reading| Health { overall: reading.overall, checks: reading.checks.clone() });
        document.redis = round.redis.as_ref().map(|redis| Redis {
            used_memory_bytes: redis.used_memory_bytes,
            max_memory_bytes: redis.max_memory_bytes,
            clients: redis.clients,
            commands: redis.commands,
            evicted_keys: redis.evicted_keys,
            keys: redis.keys,
        });
        let Inner { document, history, .. } = &mut *inner;
        history.round(&document.tenants);
    }

    /// The whole, with what is wrong.
    pub fn document(&self) -> Document {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut document = inner.document.clone();
        inner.history.show(&mut document.tenants);
        for probe in &inner.probes {
            probe(&mut document);
        }
        document.problems = problems(&inner, &document);
        document.healthy = document.problems.is_empty();
        document
    }
}

fn problems(inner: &Inner, document: &Document) -> Vec<String> {
    let mut problems = Vec::new();
    if inner.enabled_link && document.connection.state != "connected" {
        problems.push(match &document.connection.last_error {
            Some(error) => format!("not connected to {}: {error}", document.connection.coordinator),
            None => format!("not connected to {}", document.connection.coordinator),
        });
    }
    for source in document.sources.iter().filter(|source| source.state == "degraded") {
        problems.push(format!("source {}: {}", source.name, source.message));
    }
    problems.extend(machine::problems(document));
    if let Some(problem) = &document.spool.problem {
        problems.push(format!("spool: {problem}"));
    }
    let late = std::time::Duration::from_millis(document.interval_ms.into()) * LATE_ROUNDS
        + std::time::Duration::from_secs(2);
    let since = inner.last_round.unwrap_or(inner.started).elapsed();
    if since > late {
        problems.push(format!("no round was finished for {} s", since.as_secs()));
    }
    for moved in &document.moves {
        if let Some(error) = &moved.last_error {
            problems.push(format!("move {}: {error}", moved.id));
        }
    }
    problems
}

fn state(state: wire::SourceState) -> &'static str {
    match state {
        wire::SourceState::Ok => "ok",
        wire::SourceState::Degraded => "degraded",
        wire::SourceState::Off | wire::SourceState::Unspecified => "off",
    }
}

fn tenant(id: String, values: &TenantRound, interval_ms: u64, storage_measured: bool) -> Tenant {
    let per_second_milli = |count: u64| count.saturating_mul(1_000_000) / interval_ms;
    let app = values.app.as_ref();
    let points = app.and_then(|app| app.gps_points);
    let calls = app.and_then(|app| app.api_calls);
    let duration = app.and_then(|app| app.request_duration_us);
    let front = values.front;
    let calls = calls.or(front.map(|front| front.calls));
    let duration = duration.or(front.map(|front| front.duration_us));
    Tenant {
        id,
        slug: values.slug.clone(),
        cpu_milli: Figure {
            measured: values.own_cpu_us.map(|cpu| cpu / interval_ms),
            attributed: values.cpu_us.map(|cpu| cpu / interval_ms),
        },
        memory_bytes: Figure { measured: values.own_memory_bytes, attributed: values.memory_bytes },
        storage_bytes: if storage_measured {
            Figure { measured: values.storage_bytes, attributed: None }
        } else {
            Figure { measured: None, attributed: values.storage_bytes }
        },
        db_connections: Figure {
            measured: values.named_connections.map(|(all, _)| all),
            attributed: values.connections.map(|(all, _)| all),
        },
        client_connections: app
            .and_then(|app| app.client_connections)
            .or(front.map(|front| front.clients)),
        vehicles: app.and_then(|app| app.vehicles).or(values.vehicles),
        gps_points_per_s_milli: Figure {
            measured: points.map(per_second_milli),
            attributed: if points.is_some() {
                None
            } else {
                values.stored_points.map(per_second_milli)
            },
        },
        api_calls_per_s_milli: calls.map(per_second_milli),
        mean_response_us: duration
            .zip(calls)
            .and_then(|(duration, calls)| duration.checked_div(calls)),
        groups: Groups::of(&values.counted, &values.detail),
        redis_keys: values.redis.map(|keys| (keys.keys, keys.keys_error)),
        ..Tenant::default()
    }
}
