//! Containers over their restarts: how often each began again, and how often
//! the kernel killed in it for memory. Pure.
//!
//! Both are known in two ways, neither of which sees everything: the engine's
//! events miss what happens while their stream is broken, and the control
//! group, whose files count kills and whose end shows a restart, is gone before
//! it can be read when a container dies of its kill. They count the same
//! things, so the larger count stands.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use webhost_proto::ids::TenantId;

/// What the events said of one container since they were last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) starts: u64,
    pub(super) ooms: u64,
}

/// One thing, counted twice.
#[derive(Clone, Copy, Debug, Default)]
struct Twice {
    told: u64,
    read: u64,
    counted: u64,
}

impl Twice {
    /// What is new by the larger count.
    fn growth(&mut self) -> u64 {
        let largest = self.told.max(self.read);
        let more = largest.saturating_sub(self.counted);
        self.counted += more;
        more
    }
}

#[derive(Clone, Debug)]
struct Life {
    tenant: TenantId,
    seen: Instant,
    starts: Twice,
    ooms: Twice,
}

/// The tenants' containers by id, also those that ended a while ago.
#[derive(Debug, Default)]
pub(super) struct Lives(BTreeMap<String, Life>);

/// What is new of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) restarts: u64,
    pub(super) ooms: u64,
}

impl Lives {
    /// Its control group was opened: it begins, or begins again. `born`: it
    /// was not there when the agent came.
    pub(super) fn opened(&mut self, id: &str, tenant: TenantId, born: bool, now: Instant) {
        let life = self.0.entry(id.to_owned()).or_insert_with(|| Life {
            tenant,
            seen: now,
            // The first start is no restart, whoever saw it.
            starts: Twice { told: u64::from(!born), read: 0, counted: 1 },
            ooms: Twice::default(),
        });
        life.starts.read += 1;
        life.seen = now;
    }

    /// It runs, and its group counted so many more kills.
    pub(super) fn read(&mut self, id: &str, ooms: u64, now: Instant) {
        if let Some(life) = self.0.get_mut(id) {
            life.ooms.read += ooms;
            life.seen = now;
        }
    }

    /// What the engine told of it.
    pub(super) fn told(&mut self, id: &str, happened: Happened) {
        if let Some(life) = self.0.get_mut(id) {
            life.starts.told += happened.starts;
            life.ooms.told += happened.ooms;
        }
    }

    /// What is new since the last call, by tenant; forgets containers that
    /// didn't run for longer than `forget`.
    pub(super) fn news(&mut self, now: Instant, forget: Duration) -> BTreeMap<TenantId, News> {
        let mut news: BTreeMap<TenantId, News> = BTreeMap::new();
        for life in self.0.values_mut() {
            let (restarts, ooms) = (life.starts.growth(), life.ooms.growth());
            if restarts > 0 || ooms > 0 {
                let tenant = news.entry(life.tenant).or_default();
                tenant.restarts += restarts;
                tenant.ooms += ooms;
            }
        }
        self.0.retain(|_, life| now.saturating_duration_since(life.seen) < forget);
        news
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const FORGET: Duration = Duration::from_secs(900);

    /// What happens to a container, in order, and what has to be counted.
    enum Step {
        Opened,
        Told(u64, u64),
        Read(u64),
        News(u64, u64),
    }
    use Step::{News as Is, Opened, Read, Told};

    #[tokio::test(start_paused = true)]
    async fn restarts_and_kills_by_table() {
        for (what, born, steps) in [
            ("it was there", false, vec![Opened, Is(0, 0), Read(0), Is(0, 0)]),
            ("it came, and its start is told late", true, vec![Opened, Told(1, 0), Is(0, 0)]),
            ("it began again, as both ways say", false, vec![Opened, Opened, Told(1, 0), Is(1, 0)]),
            ("told after it was seen", false, vec![Opened, Opened, Is(1, 0), Told(1, 0), Is(0, 0)]),
            ("the events were away", false, vec![Opened, Opened, Is(1, 0), Opened, Is(1, 0)]),
            ("three times within a round", false, vec![Opened, Opened, Told(3, 0), Is(3, 0)]),
            ("three times, and new", true, vec![Opened, Told(1, 0), Told(3, 0), Is(3, 0)]),
            ("killed and counted by both", false, vec![Opened, Read(2), Told(0, 2), Is(0, 2)]),
            ("died of its kill", false, vec![Opened, Told(0, 1), Opened, Told(1, 0), Is(1, 1)]),
            (
                "one event for two kills",
                false,
                vec![Opened, Told(0, 1), Is(0, 1), Read(2), Is(0, 1)],
            ),
        ] {
            let (mut lives, now) = (Lives::default(), Instant::now());
            let tenant = TenantId(Uuid::from_u128(1));
            for step in steps {
                match step {
                    Opened => lives.opened("aa", tenant, born, now),
                    Told(starts, ooms) => lives.told("aa", Happened { starts, ooms }),
                    Read(ooms) => lives.read("aa", ooms, now),
                    Is(restarts, ooms) => {
                        let news = lives.news(now, FORGET).remove(&tenant).unwrap_or_default();
                        assert_eq!(news, News { restarts, ooms }, "{what}");
                    }
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_for_long_is_forgotten_and_a_stranger_is_nobodys() {
        let (mut lives, now) = (Lives::default(), Instant::now());
        lives.told("stranger", Happened { starts: 9, ooms: 9 });
        lives.opened("aa", TenantId(Uuid::from_u128(1)), false, now);
        assert!(lives.news(now + FORGET, FORGET).is_empty());
        assert!(lives.0.is_empty(), "{lives:?}");
    }
}
