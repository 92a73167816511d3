//! What a tenant's devices felt of a cut-over.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::ledger::Upload;

/// How far around the switch an upload counts as touched by it.
const WINDOW: Duration = Duration::from_millis(250);

/// The pause of one cut-over, over the tenant's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When the target acknowledged its first upload, since the load's start.
    pub switched: Duration,
    /// Devices with an upload around the switch.
    pub devices: usize,
    /// The median over devices of each one's worst upload.
    pub p50: Duration,
    /// The worst upload of all.
    pub max: Duration,
    /// Uploads that had to be repeated.
    pub retried: usize,
    /// The same figures for the ten seconds before: what is usual.
    pub usual_p50: Duration,
    /// The worst upload of those ten seconds.
    pub usual_max: Duration,
}

/// The pause of `tenant` at its move to `target`; nothing when the target
/// never acknowledged anything.
pub fn pause(uploads: &[Upload], tenant: Uuid, target: &str) -> Option<Pause> {
    let own: Vec<&Upload> = uploads.iter().filter(|upload| upload.tenant == tenant).collect();
    let switched =
        own.iter().filter(|upload| upload.node == target).map(|upload| upload.ended()).min()?;
    let (from, to) = (switched.saturating_sub(WINDOW), switched + WINDOW);
    let around: Vec<&Upload> = own
        .iter()
        .filter(|upload| upload.started <= to && upload.ended() >= from)
        .copied()
        .collect();
    let before_from = from.saturating_sub(Duration::from_secs(10));
    let mut before: Vec<Duration> = own
        .iter()
        .filter(|upload| upload.started >= before_from && upload.ended() < from)
        .map(|upload| upload.took)
        .collect();
    before.sort_unstable();
    let mut worst: BTreeMap<Uuid, Duration> = BTreeMap::new();
    for upload in &around {
        let entry = worst.entry(upload.vehicle).or_default();
        *entry = (*entry).max(upload.took);
    }
    let mut worst: Vec<Duration> = worst.into_values().collect();
    worst.sort_unstable();
    Some(Pause {
        switched,
        devices: worst.len(),
        p50: median(&worst),
        max: worst.last().copied().unwrap_or_default(),
        retried: around.iter().filter(|upload| upload.attempts > 1).count(),
        usual_p50: median(&before),
        usual_max: before.last().copied().unwrap_or_default(),
    })
}

/// The lower median of a sorted list; zero for an empty one.
fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(vehicle: u128, started: u64, took: u64, attempts: u32, node: &str) -> Upload {
        Upload {
            tenant: Uuid::from_u128(1),
            vehicle: Uuid::from_u128(vehicle),
            started: Duration::from_millis(started),
            took: Duration::from_millis(took),
            attempts,
            node: node.into(),
            rows: 1,
        }
    }

    #[test]
    fn counts_the_worst_upload_of_each_device_around_the_switch() {
        let mut uploads = vec![
            upload(1, 5_000, 4, 1, "shared"),
            upload(2, 6_000, 9, 1, "shared"),
            upload(1, 19_990, 20, 2, "dedicated"),
            upload(1, 20_050, 3, 1, "dedicated"),
            upload(2, 19_900, 5, 1, "shared"),
            upload(3, 20_100, 7, 1, "dedicated"),
            upload(3, 25_000, 900, 1, "dedicated"),
        ];
        uploads
            .push(Upload { tenant: Uuid::from_u128(2), ..upload(4, 20_000, 800, 1, "dedicated") });
        let found = pause(&uploads, Uuid::from_u128(1), "dedicated").expect("a switch");
        assert_eq!(found.switched, Duration::from_millis(20_010));
        assert_eq!(found.devices, 3);
        assert_eq!((found.p50, found.max), (Duration::from_millis(7), Duration::from_millis(20)));
        assert_eq!(found.retried, 1);
        assert_eq!(found.usual_max, Duration::ZERO, "nothing in the ten seconds before");
        assert_eq!(pause(&uploads, Uuid::from_u128(1), "nowhere"), None);
    }
}
