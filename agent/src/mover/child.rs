//! The mover's process: `webhost-agent mover`.
//!
//! Everything it needs, secrets too, comes as lines of JSON on its standard
//! input: first an [`Order`], then steps. Progress and outcomes go out as lines
//! on its standard output. It ends when its input does, and the kernel ends it
//! with its parent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::watch;

use super::catalog::Rules;
use super::connect::Endpoint;
use super::error::{Kind, MoveError, Side};
use super::fail::Fail;
use super::requests::{ALIVE_EVERY, Agent, PARKED, Requests, Word};
use super::run::{Run, Tuning};
use super::spec::{Done, Progress, Spec, Step};
use super::tunnel::{Through, TunnelIdentity};

/// A connection string and, where there is one, its password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    pub url: String,
    pub password: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(secret)")
    }
}

impl Login {
    /// From the agent's configuration.
    ///
    /// # Errors
    /// A sentence that names the file that can't be read.
    pub fn of(postgres: &crate::config::Postgres) -> Result<Self, String> {
        Self::read(postgres.url.expose(), postgres.password_file.as_deref(), "postgres")
    }

    /// The same for a source's database that a target's agent reaches by itself.
    ///
    /// # Errors
    /// As [`Login::of`].
    pub fn across(database: &crate::config::SourceDatabase) -> Result<Self, String> {
        Self::read(database.url.expose(), database.password_file.as_deref(), "moves.sources")
    }

    fn read(url: &str, password_file: Option<&Path>, section: &str) -> Result<Self, String> {
        let password = password_file
            .map(|path| {
                std::fs::read_to_string(path)
                    .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                    .map_err(|error| format!("{section}.password_file {}: {error}", path.display()))
            })
            .transpose()?;
        Ok(Self { url: url.to_owned(), password })
    }

    /// How to connect.
    ///
    /// # Errors
    /// A sentence that shows nothing of the text.
    pub fn config(&self) -> Result<tokio_postgres::Config, String> {
        let mut config: tokio_postgres::Config =
            self.url.parse().map_err(|_| "the connection string can't be read".to_owned())?;
        if let Some(password) = &self.password {
            config.password(password);
        }
        Ok(config)
    }
}

/// How the target is reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Through the tunnel of the target's agent.
    Tunnel(TunnelIdentity),
    /// Directly: two databases beside one agent, and tests.
    Direct(Login),
}

/// What a child is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub spec: Spec,
    pub rules: Rules,
    /// The database beside the agent: the source's, but for a clean-up and a
    /// recovery at the target.
    pub source: Login,
    pub target: Reach,
    #[serde(default = "source")]
    pub here: Side,
    /// At the target, the source's database, where a way that does not need the
    /// source's agent leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub across: Option<Login>,
    /// Where fail points leave their mark, in tests.
    pub scratch: PathBuf,
    /// Pages per part of the copy, where a test wants small ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_part_pages: Option<u32>,
    /// Streams of the copy; 0 is as many as help.
    #[serde(default)]
    pub copy_streams: u32,
    /// Seconds between two exact comparisons of a way back; 0 is an hour.
    #[serde(default)]
    pub way_back_verify_s: u32,
}

fn source() -> Side {
    Side::Source
}

/// One line of a child's output.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Said {
    Line(Line),
    Word(Word),
}

/// What a child says of its step, one a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    Progress(Progress),
    Done(Done),
    Failed { kind: Kind, message: String },
}

/// What ends a child early.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("mover: {0}")]
    Io(#[from] std::io::Error),
    #[error("mover: the order on standard input can't be read: {0}")]
    Order(serde_json::Error),
    #[error("mover: the step on standard input can't be read: {0}")]
    Step(serde_json::Error),
    #[error(
        "mover: standard input ended before an order came; this command is for the agent itself"
    )]
    NoOrder,
    #[error("mover: {0}")]
    Setup(String),
}

/// The process's whole life on its standard streams. Call it from `main`.
///
/// # Errors
/// [`ChildError`]; failures of steps are answers, not errors.
pub async fn main() -> Result<(), ChildError> {
    // Killed, not asked: the fence rows are all that a mover leaves behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(std::io::Error::from)?;
    let fail = |order: &Order| Fail::from_environment(&order.scratch);
    run(BufReader::new(tokio::io::stdin()), tokio::io::stdout(), fail).await
}

/// Reads an order and steps from `input`, answers on `output`, until `input`
/// ends; a step that runs then is dropped, and its connections close. While a
/// step runs, the one line that may come is the agent's answer to a park.
///
/// # Errors
/// [`ChildError`].
pub async fn run(
    input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    fail: impl FnOnce(&Order) -> Fail,
) -> Result<(), ChildError> {
    let mut lines = input.lines();
    let Some(line) = lines.next_line().await? else { return Err(ChildError::NoOrder) };
    let order: Order = serde_json::from_str(&line).map_err(ChildError::Order)?;
    let (agent, mut words) = Agent::new();
    let agent = Arc::new(agent);
    let run = match prepare(order, fail, Arc::clone(&agent) as Arc<dyn Requests>) {
        Ok(run) => run,
        // Another child would fail the same way: an answer, not a death.
        Err(ChildError::Setup(message)) => {
            let answer = Line::Failed { kind: Kind::Refused, message };
            return say(&mut output, &answer).await;
        }
        Err(other) => return Err(other),
    };
    let mut progress = run.progress.subscribe();
    // Said between the polls of the work, so that work which blocks shows.
    let mut alive = tokio::time::interval(ALIVE_EVERY);
    while let Some(line) = lines.next_line().await? {
        let step: Step = serde_json::from_str(&line).map_err(ChildError::Step)?;
        let mut work = std::pin::pin!(run.step(step));
        let outcome = loop {
            tokio::select! {
                biased;
                // The sender lives in `run`, as long as this loop.
                Some(word) = words.recv() => say(&mut output, &word).await?,
                outcome = &mut work => break outcome,
                changed = progress.changed() => {
                    if changed.is_ok() {
                        let latest = progress.borrow_and_update().clone();
                        say(&mut output, &Line::Progress(latest)).await?;
                    }
                }
                read = lines.next_line() => match read?.as_deref() {
                    Some(PARKED) => agent.answered(),
                    // One step at a time: anything else is the end.
                    Some(_) | None => return Ok(()),
                },
                _ = alive.tick() => say(&mut output, &Word::Alive).await?,
            }
        };
        // What was said last comes before the answer.
        while let Ok(word) = words.try_recv() {
            say(&mut output, &word).await?;
        }
        let answer = match outcome {
            Ok(done) => Line::Done(done),
            // The report says itself that it refuses.
            Err(MoveError::Preflight(report)) => Line::Done(Done::Preflight(*report)),
            Err(error) => Line::Failed { kind: error.kind(), message: error.to_string() },
        };
        say(&mut output, &answer).await?;
    }
    Ok(())
}

fn prepare(
    order: Order,
    fail: impl FnOnce(&Order) -> Fail,
    requests: Arc<dyn Requests>,
) -> Result<Run, ChildError> {
    let setup = |what: String| ChildError::Setup(what);
    let local = |login: &Login| {
        let mut config = login.config()?;
        config.connect_timeout(Duration::from_secs(10));
        Ok(Endpoint::Local(Box::new(config)))
    };
    let beside = local(&order.source).map_err(setup)?;
    let across = order.across.as_ref().map(local).transpose().map_err(setup)?;
    let alone = order.here == Side::Target && across.is_none();
    let source = across.unwrap_or_else(|| beside.clone());
    let target = match &order.target {
        _ if order.here == Side::Target => beside,
        Reach::Direct(login) => local(login).map_err(setup)?,
        Reach::Tunnel(identity) => {
            Endpoint::Through(Arc::new(Through::new(&order.spec, identity).map_err(setup)?))
        }
    };
    let mut tuning = Tuning {
        copy_streams: usize::try_from(order.copy_streams).ok().filter(|streams| *streams > 0),
        ..Tuning::default()
    };
    if let Some(pages) = order.copy_part_pages {
        tuning.copy_part_pages = pages;
    }
    if order.way_back_verify_s > 0 {
        tuning.way_back_verify = Duration::from_secs(order.way_back_verify_s.into());
    }
    let fail = fail(&order);
    // Beside the directory of open moves, in the state directory.
    let archives = order.scratch.with_file_name("archives");
    Ok(Run {
        spec: order.spec,
        rules: order.rules,
        source,
        target,
        here: order.here,
        alone,
        tuning,
        archives,
        fail,
        requests,
        progress: watch::Sender::new(Progress::default()),
    })
}

async fn say(
    output: &mut (impl AsyncWrite + Unpin),
    line: &impl Serialize,
) -> Result<(), ChildError> {
    let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
    text.push(b'\n');
    output.write_all(&text).await?;
    output.flush().await?;
    Ok(())
}
