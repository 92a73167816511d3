//! `[records]`: how long the coordinator's own records are kept.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::store::old::Old;

/// Days; 0 is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Records {
    /// Decisions that led to no move. How they turned out is said of so long.
    pub decisions_days: u32,
    /// Commands of moves that have ended.
    pub commands_days: u32,
    /// The histories of moves that have ended; the moves themselves stay.
    pub move_events_days: u32,
    /// Sums of hours, from which months and a restarted coordinator's memory
    /// are made.
    pub usage_hourly_days: u32,
    /// Tokens by which machines join, after they have expired.
    pub join_tokens_days: u32,
    /// The audit trail.
    pub audit_days: u32,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            decisions_days: 730,
            commands_days: 30,
            move_events_days: 730,
            usage_hourly_days: 730,
            join_tokens_days: 30,
            audit_days: 0,
        }
    }
}

impl Records {
    /// Of one table; 0 is for ever.
    pub const fn days(&self, what: Old) -> u32 {
        match what {
            Old::Commands => self.commands_days,
            Old::MoveEvents => self.move_events_days,
            Old::Decisions => self.decisions_days,
            Old::UsageHourly => self.usage_hourly_days,
            Old::JoinTokens => self.join_tokens_days,
            Old::Audit => self.audit_days,
        }
    }

    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the key.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        for (key, days, least) in [
            ("records.decisions_days", self.decisions_days, 7),
            ("records.commands_days", self.commands_days, 1),
            ("records.move_events_days", self.move_events_days, 7),
            ("records.usage_hourly_days", self.usage_hourly_days, 62),
            ("records.join_tokens_days", self.join_tokens_days, 1),
            ("records.audit_days", self.audit_days, 30),
        ] {
            if days != 0 && !(least..=3660).contains(&days) {
                let problem = format!("must be {least} to 3660 days, or 0, which is for ever");
                return Err(ConfigError::Value { key, problem });
            }
        }
        Ok(())
    }
}
