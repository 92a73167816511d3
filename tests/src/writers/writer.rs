//! One writer: its sessions, and how it brings a transaction to its end.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Config, Error, SimpleQueryMessage};
use uuid::Uuid;

use super::doubt::second_phase;
use super::draft::{Draft, Effect, Statement};
use super::group::Mix;
use super::ledger::{EVENTS, Isolation, Ledger, Write};
use super::world::{World, session};

pub(super) struct Writer {
    pub(super) world: World,
    level: Isolation,
    pub(super) random: StdRng,
    pub(super) mix: Mix,
    pub(super) sides: [Side; 2],
    /// Which side it believes in.
    pub(super) at: usize,
    pub(super) ledger: Ledger,
    pub(super) next: i32,
}

pub(super) struct Side {
    pub(super) config: Config,
    pub(super) client: Client,
    _driver: JoinSet<()>,
}

impl Side {
    /// A session with a server that may be on its way down or up.
    pub(super) async fn connect(config: Config, since: Instant) -> anyhow::Result<Self> {
        loop {
            match session(&config).await {
                Ok((client, driver)) => return Ok(Self { config, client, _driver: driver }),
                Err(error) if since.elapsed() > PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// A move whose writers are refused everywhere for this long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a server that comes back.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// Between two tries of one transaction.
const PAUSE: Duration = Duration::from_millis(1);

/// How a try ended that was not acknowledged.
pub(super) enum Stopped {
    /// By an answer of the server's; nothing was written.
    Refused(Error),
    /// The connection broke: before the commit was sent, or with it. Then
    /// the transaction's number says what became of it.
    Broken { committing: Option<String> },
    /// It broke in the first or the second phase of two.
    Prepared { name: String, commits: bool, second: bool },
}

/// What one try did.
enum Tried {
    Acknowledged,
    /// Prepared and then rolled back, as it was meant to.
    Undone,
}

impl Writer {
    pub(super) async fn connect(
        world: World,
        level: Isolation,
        seed: u64,
        role: &str,
        mix: Mix,
    ) -> anyhow::Result<Self> {
        let open = |config: &Config| {
            let mut config = config.clone();
            config.user(role).application_name("chaos writer");
            Side::connect(config, Instant::now())
        };
        let sides = [open(&world.source).await?, open(&world.target).await?];
        Ok(Self {
            world,
            level,
            random: StdRng::seed_from_u64(seed),
            mix,
            sides,
            at: 0,
            ledger: Ledger::default(),
            next: 0,
        })
    }

    /// One transaction, repeated until it is acknowledged.
    pub(super) async fn step(&mut self) -> anyhow::Result<()> {
        let draft = self.draft();
        if draft.statements.is_empty() {
            return Ok(());
        }
        let two_phase = (self.mix.two_phase && self.random.random_bool(0.1))
            .then(|| (format!("chaos-{}", Uuid::new_v4()), self.random.random_bool(0.7)));
        let mut given = Vec::new();
        if !self.acknowledged(&draft, two_phase, &mut given).await? {
            return Ok(());
        }
        for kind in &draft.kinds {
            *self.ledger.kinds.entry(kind).or_default() += 1;
        }
        for effect in draft.effects.into_iter().chain(given) {
            match effect {
                Effect::Position(key, expect) => {
                    self.ledger.positions.insert(key, expect);
                }
                Effect::Odometer(vehicle, added) => {
                    *self.ledger.odometers.entry(vehicle).or_default() += added;
                }
                Effect::Fact(table, key, value) => {
                    let before = self.ledger.facts.insert((table, key), value);
                    self.ledger.given_twice += u64::from(table == EVENTS && before.is_some());
                }
            }
        }
        Ok(())
    }

    /// Runs the draft as one transaction until it commits. False when it
    /// makes no sense on the side where the tenant lives now, or was undone
    /// as it was meant to be.
    async fn acknowledged(
        &mut self,
        draft: &Draft,
        two_phase: Option<(String, bool)>,
        given: &mut Vec<Effect>,
    ) -> anyhow::Result<bool> {
        let began = Instant::now();
        loop {
            given.clear();
            let last = match self.attempt(draft, two_phase.as_ref(), given).await {
                Ok(Tried::Undone) => return Ok(false),
                Ok(Tried::Acknowledged) => {
                    self.ledger.writes.push(Write { began, took: began.elapsed() });
                    return Ok(true);
                }
                Err(Stopped::Refused(error)) => {
                    let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                    match code.as_str() {
                        "MG001" => {
                            self.ledger.refused += 1;
                            // No place named: try again here.
                            let place = error.as_db_error().and_then(DbError::detail);
                            if place.is_some_and(|place| !place.is_empty()) {
                                self.at = 1 - self.at;
                                if draft.crosses {
                                    return Ok(false);
                                }
                            }
                        }
                        "40001" | "40P01" => self.ledger.serialization += 1,
                        _ => {
                            let said = error.as_db_error().map(ToString::to_string);
                            return Err(error)
                                .with_context(|| format!("{said:?} on {:?}", draft.statements));
                        }
                    }
                    code
                }
                Err(Stopped::Broken { committing }) => {
                    self.reconnect(began).await?;
                    if let Some(number) = committing {
                        self.ledger.in_doubt += 1;
                        if self.committed(&number).await? {
                            self.ledger.writes.push(Write { began, took: began.elapsed() });
                            return Ok(true);
                        }
                    }
                    "a broken connection".into()
                }
                Err(Stopped::Prepared { name, commits, second }) => {
                    self.reconnect(began).await?;
                    self.ledger.in_doubt += 1;
                    match self.settled(&name, commits, second).await? {
                        Some(acknowledged) => return Ok(acknowledged),
                        None => "a broken connection".into(),
                    }
                }
            };
            if began.elapsed() > PATIENCE {
                bail!("a write was refused for {PATIENCE:?}, last with {last}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        draft: &Draft,
        two_phase: Option<&(String, bool)>,
        given: &mut Vec<Effect>,
    ) -> Result<Tried, Stopped> {
        let client = &self.sides[self.at].client;
        let mut number = None;
        let written = async {
            client.batch_execute(self.level.begin()).await?;
            for statement in &draft.statements {
                match statement {
                    Statement::Sql(text) => client.batch_execute(text).await?,
                    Statement::Copy(sql, text) => {
                        let mut sink = std::pin::pin!(client.copy_in::<_, Bytes>(sql).await?);
                        sink.send(Bytes::from(text.clone())).await?;
                        sink.finish().await?;
                    }
                    Statement::Event(kind) => {
                        for message in client.simple_query(&self.event(kind)).await? {
                            if let SimpleQueryMessage::Row(row) = message
                                && let Some(seq) = row.get(0)
                            {
                                let kind = Some(kind.clone());
                                given.push(Effect::Fact(EVENTS, seq.to_owned(), kind));
                            }
                        }
                    }
                    Statement::Think(pause) => tokio::time::sleep(*pause).await,
                }
            }
            if self.mix.crashes {
                let asked = client.simple_query("select pg_current_xact_id()::text").await?;
                number = asked.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
            }
            Ok(())
        }
        .await;
        if let Err(error) = written {
            return Err(self.stopped(error, None).await);
        }
        let Some((name, commits)) = two_phase else {
            return match client.batch_execute("commit").await {
                Ok(()) => Ok(Tried::Acknowledged),
                Err(error) => Err(self.stopped(error, number).await),
            };
        };
        let doubt = |second| Stopped::Prepared { name: name.clone(), commits: *commits, second };
        match client.batch_execute(&format!("prepare transaction '{name}'")).await {
            Ok(()) => {}
            Err(error) if self.is_broken(&error) => return Err(doubt(false)),
            Err(error) => return Err(self.stopped(error, None).await),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        match client.batch_execute(&second_phase(name, *commits)).await {
            Ok(()) if *commits => Ok(Tried::Acknowledged),
            Ok(()) => Ok(Tried::Undone),
            Err(error) if self.is_broken(&error) => Err(doubt(true)),
            Err(error) => Err(Stopped::Refused(error)),
        }
    }
}
