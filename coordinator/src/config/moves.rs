//! `[moves]`: how moves are driven, and when they go back by themselves.

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// A year: longer than anything of a move may last.
const YEAR_S: u64 = 366 * 24 * 3600;

/// How moves are driven.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Moves {
    /// Rows per second that one copy may reach; 0 is unlimited.
    pub max_rows_per_second: u64,
    /// The same for copies to a shared node, whose tenants must feel nothing
    /// of it; the smaller of both holds.
    pub max_rows_per_second_to_shared: u64,
    /// The most moves under way from one node.
    pub max_per_source: u32,
    /// The most moves under way to one node.
    pub max_per_target: u32,
    /// The most moves under way in the fleet.
    pub max_in_fleet: u32,
    /// How long a move can be rolled back after its switch; 0: not at all.
    pub way_back_s: u64,
    /// How long the old copy is kept after that.
    pub keep_old_copy_s: u64,
    /// How long an undo waits for a silent target before the source lets go
    /// of the move alone.
    pub abandon_after_s: u64,
    /// How long a source's agent is silent, in a switch, before the target's is
    /// asked who serves the tenant.
    pub source_gone_s: u64,
    /// Without progress for that long, somebody is told.
    pub stuck_after_s: u64,
    /// Less than half of a move done after that long, somebody is told.
    pub slow_after_s: u64,
    /// When a move is rolled back by itself.
    pub auto_rollback: AutoRollback,
}

impl Default for Moves {
    fn default() -> Self {
        Self {
            max_rows_per_second: 0,
            max_rows_per_second_to_shared: 20_000,
            max_per_source: 1,
            max_per_target: 2,
            max_in_fleet: 4,
            way_back_s: 24 * 3600,
            keep_old_copy_s: 7 * 24 * 3600,
            abandon_after_s: 1800,
            source_gone_s: 120,
            stuck_after_s: 3600,
            slow_after_s: 3 * 3600,
            auto_rollback: AutoRollback::default(),
        }
    }
}

/// A tenant that fares worse on its new node goes back by itself, while the
/// way back is open.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoRollback {
    /// Off unless somebody wants it.
    pub enabled: bool,
    /// So many of a thousand requests fail, and more than before the switch.
    pub error_permille: u32,
    /// The mean response is so many times what it was before the switch.
    pub latency_factor: u32,
    /// For so long without a break.
    pub for_s: u64,
}

impl Default for AutoRollback {
    fn default() -> Self {
        Self { enabled: false, error_permille: 50, latency_factor: 5, for_s: 300 }
    }
}

impl Moves {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the key.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let ensure = |good: bool, key, problem: &str| {
            if good { Ok(()) } else { Err(ConfigError::Value { key, problem: problem.to_owned() }) }
        };
        for (key, value) in [
            ("moves.max_per_source", self.max_per_source),
            ("moves.max_per_target", self.max_per_target),
            ("moves.max_in_fleet", self.max_in_fleet),
        ] {
            ensure((1..=1000).contains(&value), key, "must be 1 to 1000")?;
        }
        for (key, value) in
            [("moves.way_back_s", self.way_back_s), ("moves.keep_old_copy_s", self.keep_old_copy_s)]
        {
            ensure(value <= YEAR_S, key, "must be at most 31622400, a year")?;
        }
        for (key, value) in [
            ("moves.abandon_after_s", self.abandon_after_s),
            ("moves.source_gone_s", self.source_gone_s),
            ("moves.stuck_after_s", self.stuck_after_s),
            ("moves.slow_after_s", self.slow_after_s),
            ("moves.auto_rollback.for_s", self.auto_rollback.for_s),
        ] {
            ensure((1..=YEAR_S).contains(&value), key, "must be 1 to 31622400, a year")?;
        }
        ensure(
            (1..=1000).contains(&self.auto_rollback.error_permille),
            "moves.auto_rollback.error_permille",
            "must be 1 to 1000",
        )?;
        ensure(
            (2..=1000).contains(&self.auto_rollback.latency_factor),
            "moves.auto_rollback.latency_factor",
            "must be 2 to 1000",
        )
    }
}
