//! Redis: its memory, clients and commands, and whose keys they are.
//!
//! Redis counts nothing by tenant, and looking at every key would stall it.
//! So every ten seconds some keys are drawn at random, and their owners (by
//! the keys' prefix) and sizes stand for the rest. Drawings add up, older ones
//! count less and less; with n keys drawn in the end, a tenant's share p of the
//! keys is known to about ±2·√(p(1−p)/n). What Redis uses is split by the bytes
//! drawn, and what belongs to nobody's prefix stays nobody's.
//!
//! **Invariant:** the tenants' and nobody's bytes add up to `used_memory`.

pub mod drawn;
pub mod prefix;
pub mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

use self::drawn::Drawn;
use self::prefix::Prefix;
use self::wire::{Connection, Place, Reply, connect};
use super::access_log::hosts::Database;
use super::counter::Counter;
use super::source::{Outcome, Source};
use crate::config::Redis;

/// How long one reading may take.
pub const LIMIT: Duration = Duration::from_secs(3);

/// How often keys are drawn, and how many.
const DRAW: Duration = Duration::from_secs(10);
const KEYS: usize = 128;

/// What one tenant holds in Redis: estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisTenant {
    pub keys: u64,
    /// Two standard errors of `keys`.
    pub keys_error: u64,
    /// Its part of `used_memory`.
    pub bytes: u64,
}

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisReading {
    pub used_memory_bytes: u64,
    /// 0 is no limit.
    pub max_memory_bytes: u64,
    pub clients: u64,
    /// Since the agent watches.
    pub commands: u64,
    pub evicted_keys: u64,
    pub keys: u64,
    /// Empty before keys were drawn.
    pub tenants: BTreeMap<TenantId, RedisTenant>,
}

/// The source.
pub struct RedisSource {
    place: Place,
    password_file: Option<std::path::PathBuf>,
    prefix: Option<Prefix>,
    database: Database,
    connection: Option<Connection>,
    drawn: Drawn,
    last_draw: Option<Instant>,
    commands: Counter,
    evicted: Counter,
}

impl RedisSource {
    /// `database` knows the slugs. Nothing is contacted yet.
    ///
    /// # Errors
    /// A sentence, when address or prefix are none.
    pub fn new(config: &Redis, database: Database) -> Result<Self, String> {
        Ok(Self {
            place: Place::parse(&config.address)?,
            password_file: config.password_file.clone(),
            prefix: config.prefix.as_deref().map(Prefix::parse).transpose()?,
            database,
            connection: None,
            drawn: Drawn::default(),
            last_draw: None,
            commands: Counter::default(),
            evicted: Counter::default(),
        })
    }

    async fn attempt(&mut self) -> Result<RedisReading, String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.place, self.password_file.as_deref()).await?,
        };
        let info = connection.ask(&[b"INFO"]).await?.text()?;
        let keys = connection.ask(&[b"DBSIZE"]).await?.number()?;
        if let Some(prefix) = &self.prefix
            && keys > 0
            && self.last_draw.is_none_or(|at| at.elapsed() >= DRAW)
        {
            self.last_draw = Some(Instant::now());
            let drawn = draw(&mut connection).await?;
            self.drawn.fade();
            for (key, bytes) in drawn {
                let owner = prefix.owner(&key, &self.database);
                self.drawn.add(owner, bytes);
            }
        }
        // Kept only after everything went well: what is left of a half read
        // answer must not be taken for the next one's.
        self.connection = Some(connection);
        self.commands.observe(field(&info, "total_commands_processed").unwrap_or(0));
        self.evicted.observe(field(&info, "evicted_keys").unwrap_or(0));
        let used_memory_bytes =
            field(&info, "used_memory").ok_or("INFO does not say used_memory")?;
        Ok(RedisReading {
            used_memory_bytes,
            max_memory_bytes: field(&info, "maxmemory").unwrap_or(0),
            clients: field(&info, "connected_clients").unwrap_or(0),
            commands: self.commands.total(),
            evicted_keys: self.evicted.total(),
            keys,
            tenants: self.drawn.tenants(keys, used_memory_bytes),
        })
    }
}

/// Keys at random, with what each takes.
async fn draw(connection: &mut Connection) -> Result<Vec<(Vec<u8>, u64)>, String> {
    let random: &[&[u8]] = &[b"RANDOMKEY"];
    let replies = connection.ask_all(&vec![random.to_vec(); KEYS]).await?;
    let keys: Vec<Vec<u8>> = replies.into_iter().filter_map(Reply::bytes).collect();
    let commands: Vec<Vec<&[u8]>> = keys
        .iter()
        .map(|key| vec![b"MEMORY".as_slice(), b"USAGE".as_slice(), key.as_slice()])
        .collect();
    let sizes = connection.ask_all(&commands).await?;
    // A key that ended in between has no size.
    let known = keys.into_iter().zip(sizes);
    Ok(known.filter_map(|(key, size)| Some((key, size.number().ok()?))).collect())
}

/// A number of INFO's text.
fn field(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

impl Source for RedisSource {
    type Reading = RedisReading;

    async fn read(&mut self) -> Outcome<RedisReading> {
        match self.attempt().await {
            Ok(reading) => Outcome::Good(reading),
            Err(why) => {
                self.connection = None;
                Outcome::Failed(format!("{}: {why}", self.place))
            }
        }
    }

    fn abandoned(&mut self) {
        self.connection = None;
    }
}
