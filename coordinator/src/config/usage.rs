//! How usage is looked at, and how long it is remembered.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::usage::record::Retention;

/// How usage is looked at, and how long it is remembered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Rates, response times and error rates are taken over this.
    pub window_s: u64,
    /// How long the history is kept: minutes, five minutes, hours.
    pub minutes_days: u32,
    pub fives_days: u32,
    pub hours_days: u32,
}

impl Default for Usage {
    fn default() -> Self {
        Self { window_s: 300, minutes_days: 1, fives_days: 31, hours_days: 730 }
    }
}

impl Usage {
    /// Checks the section.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with the key.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let ensure = |good: bool, key, problem: &str| {
            if good { Ok(()) } else { Err(ConfigError::Value { key, problem: problem.to_owned() }) }
        };
        ensure((10..=86_400).contains(&self.window_s), "usage.window_s", "must be 10 to 86400")?;
        ensure((1..=31).contains(&self.minutes_days), "usage.minutes_days", "must be 1 to 31")?;
        ensure(
            (2..=366).contains(&self.fives_days),
            "usage.fives_days",
            "must be 2 to 366: days are made of five minutes when they are over",
        )?;
        ensure((28..=3660).contains(&self.hours_days), "usage.hours_days", "must be 28 to 3660")
    }

    /// How long the history is kept.
    pub fn retention(&self) -> Retention {
        let days = |days: u32| SignedDuration::from_hours(i64::from(days) * 24);
        Retention {
            minutes: days(self.minutes_days),
            fives: days(self.fives_days),
            hours: days(self.hours_days),
        }
    }
}
