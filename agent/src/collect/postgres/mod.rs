//! The tenants' database: who lives here, what they store, how many vehicles
//! they have, and the connections that they hold.
//!
//! One connection, named `webhost-agent`, serves two rhythms. Every round
//! reads what is small and moves fast: the list of tenants, the fence, the
//! connections; every ten seconds [`server`] how the server is. Every survey
//! interval `catalog` finds the tables again and
//! `survey` splits their sizes. Nothing reads a time series from end to end.
//!
//! **Invariant.** A tenant whose fence row says `standby` or `moved` lives on
//! another node: it is not reported here, whatever rows it has.

mod catalog;
mod connections;
pub mod grants;
pub mod list;
mod points;
mod server;
mod session;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use webhost_proto::ids::TenantId;

pub use connections::Connections;
pub use server::ServerReading;

use self::catalog::{Catalog, unsigned};
use self::connections::Group;
use self::points::PointsCounter;
use self::server::Server;
use self::session::Session;
use self::survey::Survey;
use super::source::{Outcome, Source};
use crate::config::Postgres;

/// How long one reading may take; a survey is many statements.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What the server allows one statement of ours.
const STATEMENT_MS: u32 = 1_500;

/// More tenants than this are no node of ours.
const MAX_TENANTS: usize = 10_000;

/// One tenant that lives in this database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbTenant {
    pub slug: String,
    pub storage_bytes: Option<u64>,
    pub vehicles: Option<u64>,
    /// Points since the agent watches, by [`points`]; only where the
    /// application's metrics are not configured.
    pub gps_points: Option<u64>,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PostgresReading {
    pub tenants: BTreeMap<TenantId, DbTenant>,
    /// Tenants with rows here that live elsewhere.
    pub elsewhere: BTreeSet<TenantId>,
    pub connections: Connections,
    /// Of all databases of the server, ours included.
    pub connections_total: u64,
    /// What the server has for ordinary roles.
    pub connections_max: u64,
    /// How the server is, as it was read last.
    pub server: Option<ServerReading>,
}

/// The source.
pub struct PostgresSource {
    config: Postgres,
    /// Whether to count points here, because nobody else does.
    count_points: bool,
    session: Option<Session>,
    catalog: Option<Catalog>,
    survey: Survey,
    surveyed: Option<Instant>,
    points: PointsCounter,
    server: Server,
}

impl PostgresSource {
    /// Nothing is contacted yet.
    pub fn new(config: Postgres, count_points: bool) -> Self {
        Self {
            config,
            count_points,
            session: None,
            catalog: None,
            survey: Survey::default(),
            surveyed: None,
            points: PointsCounter::default(),
            server: Server::default(),
        }
    }

    async fn attempt(&mut self) -> Result<Outcome<PostgresReading>, String> {
        if self.session.as_ref().is_none_or(Session::is_closed) {
            self.session = Some(Session::open(&self.config, STATEMENT_MS).await?);
            // Another server may have come up at this address.
            self.catalog = None;
            self.server.forget();
        }
        let Some(session) = &self.session else {
            return Err("no connection".into());
        };
        let client = &session.client;

        let now = Instant::now();
        let interval = Duration::from_secs(self.config.survey_interval_s.into());
        let survey_due = self.catalog.is_none()
            || self.surveyed.is_none_or(|at| now.duration_since(at) >= interval);
        if survey_due {
            let read = Catalog::read(client, self.config.points_table.as_deref()).await?;
            self.catalog = Some(read);
        }
        let Some(catalog) = &self.catalog else {
            return Err("no catalog".into());
        };

        let slugs = residents(session, catalog).await?;
        if slugs.len() > MAX_TENANTS {
            return Err(format!("more than {MAX_TENANTS} rows in {}", catalog.own.sql));
        }
        let elsewhere = elsewhere(session).await?;
        if survey_due {
            let ids: Vec<TenantId> = slugs.keys().copied().collect();
            self.survey = Survey::take(client, catalog, &ids).await?;
            self.surveyed = Some(now);
        }
        let mut notes = self.survey.notes.clone();
        let mut reading = PostgresReading::default();
        read_activity(session, &slugs, &mut reading).await?;
        reading.server = self.server.look(client).await?;
        if self.count_points {
            match &catalog.points {
                Some(table) => {
                    let living: Vec<Uuid> =
                        slugs.keys().filter(|id| !elsewhere.contains(id)).map(|id| id.0).collect();
                    if let Err(why) = self.points.take(client, table, &living, unix_seconds()).await
                    {
                        notes.push(format!("GPS points can't be counted: {why}"));
                    }
                }
                None => notes.push(
                    "GPS points can't be counted: no table of positions has an index by \
                     (customer_id, time); set [app] metrics_url, or postgres.points_table"
                        .into(),
                ),
            }
        }
        for (id, slug) in slugs {
            if elsewhere.contains(&id) {
                continue;
            }
            let counted = self.count_points && catalog.points.is_some();
            let tenant = DbTenant {
                slug,
                storage_bytes: Some(self.survey.storage.get(&id).copied().unwrap_or(0)),
                vehicles: self
                    .survey
                    .vehicles
                    .as_ref()
                    .map(|counts| counts.get(&id).copied().unwrap_or(0)),
                gps_points: counted.then(|| self.points.totals.get(&id).copied().unwrap_or(0)),
            };
            reading.tenants.insert(id, tenant);
        }
        reading.elsewhere = elsewhere;
        Ok(if notes.is_empty() {
            Outcome::Good(reading)
        } else {
            Outcome::Partial(reading, notes.join("; "))
        })
    }
}

impl Source for PostgresSource {
    type Reading = PostgresReading;

    async fn read(&mut self) -> Outcome<PostgresReading> {
        match self.attempt().await {
            Ok(outcome) => outcome,
            Err(why) => {
                // Whatever went wrong may be the connection's state; a new
                // one costs little beside a round that failed.
                self.session = None;
                Outcome::Failed(format!("{}: {why}", self.config.url.place()))
            }
        }
    }

    fn abandoned(&mut self) {
        self.session = None;
    }
}

/// Ids and slugs of the rows of the tenants' own table.
async fn residents(
    session: &Session,
    catalog: &Catalog,
) -> Result<BTreeMap<TenantId, String>, String> {
    let own = &catalog.own;
    let statement =
        format!("select {}, {} from {} limit {}", own.key, own.slug, own.sql, MAX_TENANTS + 1);
    let rows = session.ask(&statement).await?;
    Ok(rows.iter().map(|row| (TenantId(row.get(0)), row.get(1))).collect())
}

/// Tenants that the fence sends elsewhere. No fence, no such tenants.
async fn elsewhere(session: &Session) -> Result<BTreeSet<TenantId>, String> {
    let fenced = session
        .ask("select pg_catalog.to_regclass('webhost_fleet.fence') is not null")
        .await?
        .first()
        .is_some_and(|row| row.get(0));
    if !fenced {
        return Ok(BTreeSet::new());
    }
    let rows = session
        .ask(
            "select customer_id from webhost_fleet.fence where state::text in ('standby', 'moved')",
        )
        .await?;
    Ok(rows.iter().map(|row| TenantId(row.get(0))).collect())
}

async fn read_activity(
    session: &Session,
    slugs: &BTreeMap<TenantId, String>,
    reading: &mut PostgresReading,
) -> Result<(), String> {
    let rows = session
        .ask(
            "select coalesce(usename::text, ''), coalesce(application_name, ''),
                    datname is not distinct from current_database(), count(*),
                    count(*) filter (where state in ('active', 'fastpath function call')),
                    current_setting('max_connections')::bigint
                        - current_setting('superuser_reserved_connections')::bigint
             from pg_catalog.pg_stat_activity where backend_type = 'client backend'
             group by 1, 2, 3",
        )
        .await?;
    let mut groups = Vec::with_capacity(rows.len());
    for row in &rows {
        let connections = unsigned(row.get(3));
        reading.connections_total += connections;
        reading.connections_max = unsigned(row.get(5));
        if row.get::<_, bool>(2) {
            groups.push(Group {
                role: row.get(0),
                application: row.get(1),
                connections,
                active: unsigned(row.get(4)),
            });
        }
    }
    reading.connections = connections::sort(&groups, slugs);
    Ok(())
}

/// The wall clock in seconds; 0 before 1970.
fn unix_seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
