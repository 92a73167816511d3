//! Room for new reports: the oldest are merged, two and two, so that what lies
//! long ago is known of more coarsely, and every total as exactly as before.
//!
//! On the disk this goes file by file, the oldest first: what is of use in it
//! is written again, merged where that is possible, and the file goes. Each
//! time round the files a report comes to cover twice the time. In memory,
//! where there are few, the two neighbours that cover the shortest time
//! together are merged.

use std::io;
use std::sync::Arc;

use super::kept::{Dictionary, Kept};
use super::shelf::{Entry, Place};
use super::trouble::Unread;
use super::{MAX_IN_MEMORY, MAX_REPORTS, Spool};
use crate::link::merge::merge;

/// The coordinator takes no report of a longer interval.
const MAX_INTERVAL_MS: u32 = 24 * 3600 * 1000;
/// The coordinator takes no greater number.
const MAX_VALUE: u64 = 1 << 53;

impl Spool {
    /// Makes room for one report.
    pub(super) fn make_room(&mut self, now_ms: u64) {
        let reports = self.len();
        if self
            .shelf
            .disk(now_ms)
            .is_some_and(|disk| disk.crowded() || (reports >= MAX_REPORTS && !disk.doomed()))
        {
            self.carry_over(now_ms);
        }
        while self.in_memory() >= MAX_IN_MEMORY {
            if !self.merge_in_memory(now_ms) && !self.drop_from_memory() {
                return;
            }
        }
    }

    /// How many reports lie in memory.
    fn in_memory(&self) -> usize {
        if !self.spilled {
            return 0;
        }
        let all = self.waiting.iter().chain(&self.numbered);
        all.filter(|entry| entry.in_memory()).count()
    }

    /// Writes again what is of use in the oldest file, which then goes. Where
    /// the disk takes nothing or a report can't be read now, the file stays.
    fn carry_over(&mut self, now_ms: u64) {
        let Some(segment) = self.shelf.disk(now_ms).and_then(|disk| disk.oldest()) else { return };
        let full = self.shelf.disk(now_ms).is_some_and(|disk| disk.stuck())
            || self.len() >= 2 * MAX_REPORTS;
        for at in 0..self.numbered.len() {
            let entry = &self.numbered[at];
            if !entry.is_in(segment) {
                continue;
            }
            let kept = match self.shelf.get(entry, now_ms) {
                Ok(kept) => kept,
                Err(Unread::Later) => return,
                // Whoever would send it counts it.
                Err(Unread::Lost(_)) => continue,
            };
            let (serial, number) = (entry.serial, entry.number);
            let Some(place) = self.shelf.write(serial, number, &[], &kept, now_ms) else { return };
            self.numbered[at].place = Place::Disk(place);
        }
        let mut at = 0;
        while let Some(entry) = self.waiting.get(at) {
            if !entry.is_in(segment) {
                at += 1;
                continue;
            }
            let kept = match self.shelf.get(entry, now_ms) {
                Ok(kept) => kept,
                Err(Unread::Later) => return,
                Err(Unread::Lost(error)) => {
                    let entry = self.waiting.remove(at);
                    self.count_lost(entry, &error);
                    continue;
                }
            };
            let next = self.waiting.get(at + 1).filter(|next| !next.in_memory());
            let other = match next.map(|next| self.shelf.get(next, now_ms)) {
                Some(Err(Unread::Later)) => return,
                other => other.and_then(Result::ok),
            };
            let merged = other.and_then(|other| self.merged(&kept, &other));
            if let Some(merged) = merged {
                let serial = self.waiting[at + 1].serial;
                let replaces = [self.waiting[at].serial];
                let place = self.shelf.write(serial, None, &replaces, &merged, now_ms);
                let Some(place) = place else { return };
                self.waiting[at + 1] = waiting(serial, &merged, Place::Disk(place));
                self.waiting.remove(at);
                // What it is now lies elsewhere: it is not merged again.
                at += 1;
            } else if full {
                tracing::error!("the spool is full of reports that can't be merged; one is lost");
                self.lost += 1;
                self.waiting.remove(at);
            } else {
                let serial = self.waiting[at].serial;
                let place = self.shelf.write(serial, None, &[], &kept, now_ms);
                let Some(place) = place else { return };
                self.waiting[at].place = Place::Disk(place);
                at += 1;
            }
        }
        if let Some(disk) = self.shelf.disk(now_ms) {
            disk.doom_oldest();
        }
    }

    /// Two as one; none where the coordinator would not take it.
    fn merged(&self, earlier: &Kept, later: &Kept) -> Option<Kept> {
        if earlier.interval_ms.saturating_add(later.interval_ms) > MAX_INTERVAL_MS {
            return None;
        }
        let mut merged = merge(&earlier.report(), &later.report());
        let dictionary = if later.dictionary.tenants == merged.tenants {
            later.dictionary.clone()
        } else {
            Arc::new(Dictionary::new(merged.tenants.clone()))
        };
        let host =
            [merged.host.cpu_busy_us, merged.host.network_rx_bytes, merged.host.network_tx_bytes];
        let values = merged.columns.iter().flat_map(|column| column.values.iter().flatten());
        let sound = merged.tenants.len() <= self.max_tenants
            && values.chain(&host).all(|value| *value <= MAX_VALUE);
        // What is told by the minute gives way to totals.
        let mut fits = sound && Kept::fits(&merged, &dictionary);
        if sound && !fits {
            merged.minutes.clear();
            fits = Kept::fits(&merged, &dictionary);
        }
        fits.then(|| Kept::of(&merged, dictionary))
    }

    /// Merges two neighbours in memory; false where there are no two.
    fn merge_in_memory(&mut self, now_ms: u64) -> bool {
        let mut pairs: Vec<(bool, u64, usize)> = Vec::new();
        for at in 1..self.waiting.len() {
            let (Place::Memory(one), Place::Memory(two)) =
                (&self.waiting[at - 1].place, &self.waiting[at].place)
            else {
                continue;
            };
            // A change of tenants stands for a change of meaning: merged last.
            let differ = one.dictionary.key != two.dictionary.key;
            let time = u64::from(one.interval_ms) + u64::from(two.interval_ms);
            pairs.push((differ, time, at));
        }
        pairs.sort_unstable();
        for (_, _, at) in pairs {
            let one = self.shelf.get(&self.waiting[at - 1], now_ms);
            let two = self.shelf.get(&self.waiting[at], now_ms);
            let (Ok(one), Ok(two)) = (one, two) else { continue };
            let Some(merged) = self.merged(&one, &two) else { continue };
            let serial = self.waiting[at].serial;
            self.waiting[at] = waiting(serial, &merged, Place::Memory(Box::new(merged.clone())));
            self.waiting.remove(at - 1);
            tracing::debug!(now_ms, "two reports in memory became one");
            return true;
        }
        false
    }

    /// Says that a report, which nobody holds any more, is lost.
    pub(super) fn count_lost(&mut self, entry: Option<Entry>, error: &io::Error) {
        let Some(entry) = entry else { return };
        tracing::error!(%error, collected_at_us = entry.collected_at_us, "a spooled report is lost");
        self.shelf.forget(&entry);
        self.lost += 1;
    }

    /// Gives up the oldest report in memory; false where there is none.
    fn drop_from_memory(&mut self) -> bool {
        let oldest = self.waiting.iter().position(Entry::in_memory);
        let dropped = oldest.and_then(|at| self.waiting.remove(at));
        if dropped.is_some() {
            tracing::error!("no room in memory for reports that can't be merged; one is lost");
            self.lost += 1;
        }
        dropped.is_some()
    }

    /// Moves what waits in memory to the disk, once that takes something
    /// again.
    pub(super) fn move_to_disk(&mut self, now_ms: u64) {
        if !self.spilled || self.shelf.problem().is_some() {
            return;
        }
        for entry in self.numbered.iter_mut().chain(&mut self.waiting) {
            let Place::Memory(kept) = &entry.place else { continue };
            if self.shelf.full() {
                return;
            }
            let Some(place) = self.shelf.write(entry.serial, entry.number, &[], kept, now_ms)
            else {
                return;
            };
            entry.place = Place::Disk(place);
        }
        self.spilled = false;
    }
}

/// A report that was never sent.
fn waiting(serial: u64, kept: &Kept, place: Place) -> Entry {
    Entry {
        serial,
        number: None,
        sealed: true,
        collected_at_us: kept.collected_at_us,
        interval_ms: kept.interval_ms,
        place,
    }
}
