//! What was drawn, and what follows from it. Pure.

use std::collections::BTreeMap;

use webhost_proto::ids::TenantId;

use super::RedisTenant;
use crate::collect::split::split;

/// After this many drawings the first one counts half: a drawing every ten
/// seconds, so ten minutes.
const HALF_AFTER: f64 = 60.0;

/// More owners than this are no tenants of one node.
const MAX_OWNERS: usize = 10_000;

#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    keys: f64,
    bytes: f64,
}

/// Keys drawn by owner; `None` is nobody.
#[derive(Debug, Default)]
pub struct Drawn {
    owners: BTreeMap<Option<TenantId>, Weight>,
    all: f64,
}

impl Drawn {
    /// Another drawing begins: what is known counts a little less.
    pub fn fade(&mut self) {
        let factor = 0.5_f64.powf(1.0 / HALF_AFTER);
        self.all *= factor;
        self.owners.retain(|_, weight| {
            weight.keys *= factor;
            weight.bytes *= factor;
            weight.keys > 0.01
        });
    }

    /// A key was drawn.
    pub fn add(&mut self, owner: Option<TenantId>, bytes: u64) {
        if self.owners.len() >= MAX_OWNERS && !self.owners.contains_key(&owner) {
            return;
        }
        let weight = self.owners.entry(owner).or_default();
        weight.keys += 1.0;
        weight.bytes += bytes as f64;
        self.all += 1.0;
    }

    /// The tenants' parts of `keys` keys and `used` bytes. Empty before
    /// anything was drawn.
    pub fn tenants(&self, keys: u64, used: u64) -> BTreeMap<TenantId, RedisTenant> {
        // Bytes as integers keep their order; rounding is within a byte.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let weights: Vec<u64> = self.owners.values().map(|w| w.bytes.round() as u64).collect();
        let parts = split(used, &weights);
        let mut tenants = BTreeMap::new();
        for ((owner, weight), bytes) in self.owners.iter().zip(parts) {
            let Some(owner) = owner else { continue };
            let share = (weight.keys / self.all.max(1.0)).clamp(0.0, 1.0);
            let error = 2.0 * (share * (1.0 - share) / self.all.max(1.0)).sqrt();
            // Not negative, and at most `keys`.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let of_all = |part: f64| (part * keys as f64).round() as u64;
            let tenant = RedisTenant { keys: of_all(share), keys_error: of_all(error), bytes };
            tenants.insert(*owner, tenant);
        }
        tenants
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn old_drawings_fade_and_end() {
        let mut drawn = Drawn::default();
        let one = TenantId(Uuid::from_u128(1));
        drawn.add(Some(one), 100);
        assert_eq!(drawn.tenants(50, 900)[&one].keys, 50);
        (0..1_000).for_each(|_| drawn.fade());
        assert!(drawn.tenants(50, 900).is_empty());
    }

    proptest! {
        #[test]
        fn parts_add_up_to_what_redis_uses(
            keys in proptest::collection::vec((0_u128..6, 1_u64..10_000), 1..200),
            used in 0_u64..1 << 40,
        ) {
            let mut drawn = Drawn::default();
            for (owner, bytes) in &keys {
                // The first one is nobody.
                drawn.add((*owner > 0).then(|| TenantId(Uuid::from_u128(*owner))), *bytes);
            }
            let tenants = drawn.tenants(1_000, used);
            let sum: u64 = tenants.values().map(|tenant| tenant.bytes).sum();
            prop_assert!(sum <= used);
            if keys.iter().all(|(owner, _)| *owner > 0) {
                prop_assert_eq!(sum, used);
            }
            let all: u64 = tenants.values().map(|tenant| tenant.keys).sum();
            prop_assert!(all <= 1_000 + tenants.len() as u64);
        }
    }
}
