//! The sources' health as a message carries it: within the bounds that the
//! coordinator sets to texts.

use webhost_proto::wire;

use super::Sources;
use crate::collect::checks::{Checked, ChecksReading, State};
use crate::collect::source::Health;

/// What the coordinator takes of a source's words.
const MAX_MESSAGE_BYTES: usize = 1_000;
/// What it takes of a slug.
pub(super) const MAX_SLUG_BYTES: usize = 128;

/// The beginning of `text`, cut between two letters.
pub(super) fn shortened(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("").to_owned()
}

/// What the coordinator takes of checks, and of a name or a reason of theirs.
const MAX_CHECKS: usize = 32;
const MAX_WORD_BYTES: usize = 255;

/// The checks as a message carries them.
pub(super) fn checks(reading: &ChecksReading) -> wire::HealthChecks {
    let state = |state: State| match state {
        State::Healthy => wire::HealthState::Healthy.into(),
        State::Degraded => wire::HealthState::Degraded.into(),
        State::Down => wire::HealthState::Down.into(),
    };
    let word = |text: &str| shortened(&text.replace(char::is_control, " "), MAX_WORD_BYTES);
    let check = |checked: &Checked| wire::HealthCheck {
        name: word(&checked.name),
        state: state(checked.state),
        took_us: checked.took_us,
        failures: checked.failures,
        message: word(&checked.message),
    };
    let checks = reading.checks.iter().take(MAX_CHECKS).map(check).collect();
    wire::HealthChecks { overall: state(reading.overall), checks }
}

/// Every source's health, in a stable order.
pub(super) fn healths(sources: &Sources<'_>) -> Vec<wire::SourceHealth> {
    [
        ("host", &sources.host.health),
        ("containers", &sources.containers.health),
        ("postgres", &sources.postgres.health),
        ("app", &sources.app.health),
        ("attribution", &sources.shared.health),
        ("slices", &sources.slices.health),
        ("access_log", &sources.access.health),
        ("redis", &sources.redis.health),
        ("health", &sources.checks.health),
    ]
    .into_iter()
    .map(|(source, health)| {
        let (state, message) = match health {
            Health::Ok => (wire::SourceState::Ok, ""),
            Health::Degraded(why) => (wire::SourceState::Degraded, why.as_str()),
            Health::Off(why) => (wire::SourceState::Off, why.as_str()),
        };
        let message = shortened(message, MAX_MESSAGE_BYTES);
        wire::SourceHealth { source: source.into(), state: state.into(), message }
    })
    .collect()
}
