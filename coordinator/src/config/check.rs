//! What the types of the keys can't say of them.

use super::{Config, ConfigError};

impl Config {
    /// The first key whose value is out of its range, or at odds with another.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.catalog.validate()?;
        let ensure = |good: bool, key, problem: &str| {
            if good { Ok(()) } else { Err(ConfigError::Value { key, problem: problem.to_owned() }) }
        };
        ensure(
            (2..=1000).contains(&self.database.connections),
            "database.connections",
            "must be 2 to 1000",
        )?;
        ensure(
            self.api.certificate_file.is_some() == self.api.key_file.is_some(),
            "api.certificate_file",
            "needs api.key_file beside it, and the reverse",
        )?;
        ensure(
            (1024..=16 << 20).contains(&self.api.body_limit_bytes),
            "api.body_limit_bytes",
            "must be 1024 to 16777216",
        )?;
        ensure(
            (1..=600).contains(&self.api.request_timeout_s),
            "api.request_timeout_s",
            "must be 1 to 600",
        )?;
        ensure(!self.link.names.is_empty(), "link.names", "agents need at least one name to dial")?;
        ensure(
            (200..=3_600_000).contains(&self.link.report_interval_ms),
            "link.report_interval_ms",
            "must be 200 to 3600000",
        )?;
        ensure(
            (1..=1000).contains(&self.link.report_window),
            "link.report_window",
            "must be 1 to 1000",
        )?;
        ensure(self.link.silence_s >= 1, "link.silence_s", "must be at least 1")?;
        ensure(
            (1..=168).contains(&self.link.certificate_hours),
            "link.certificate_hours",
            "must be 1 to 168",
        )?;
        ensure(
            self.signup.reservation_ttl_s >= 1,
            "signup.reservation_ttl_s",
            "must be at least 1",
        )?;
        ensure(self.signup.retry_interval_s >= 1, "signup.retry_interval_s", "must be at least 1")?;
        self.usage.validate()?;
        self.records.validate()?;
        ensure(self.evaluation.interval_s >= 1, "evaluation.interval_s", "must be at least 1")?;
        ensure(
            self.evaluation.scan_interval_s >= 1,
            "evaluation.scan_interval_s",
            "must be at least 1",
        )?;
        ensure(
            self.evaluation.remind_after_s >= 1,
            "evaluation.remind_after_s",
            "must be at least 1",
        )?;
        ensure(
            self.evaluation.expire_after_s >= 1,
            "evaluation.expire_after_s",
            "must be at least 1",
        )?;
        ensure(
            self.routing.domain.as_deref().is_none_or(crate::signup::request::is_host),
            "routing.domain",
            "must be a domain name like tracking.example.net",
        )?;
        self.moves.validate()
    }
}
