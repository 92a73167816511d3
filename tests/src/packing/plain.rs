//! Plain packers, to hold ours against on the same tenants: first fit and best
//! fit over every server, and the scan that placement used before, which added
//! up peaks.

use webhost_coordinator::fleet::need::Figures;
use webhost_coordinator::fleet::{Load, Need};

/// Servers that are looked at one by one.
pub struct Plain {
    loads: Vec<Load>,
    limit: Figures,
}

impl Plain {
    /// `count` empty servers that may be filled to `limit`.
    pub fn new(count: usize, limit: Figures) -> Self {
        Self { loads: vec![Load::default(); count], limit }
    }

    fn left(&self, figures: &Figures) -> Option<u64> {
        let mut waste = 0_u64;
        for (figure, limit) in figures.iter().zip(&self.limit) {
            let free = u64::from(limit.checked_sub(*figure)?);
            let unused = free * 10_000 / u64::from((*limit).max(1));
            waste += unused * unused;
        }
        Some(waste)
    }

    fn take(&mut self, at: Option<usize>, need: &Need) -> Option<usize> {
        let at = at?;
        self.loads[at].add(need);
        Some(at)
    }

    /// The first server that fits.
    pub fn first_fit(&mut self, need: &Need) -> Option<usize> {
        let fits = |load: &Load| self.left(&load.peaks_with(need)).is_some();
        let at = self.loads.iter().position(fits);
        self.take(at, need)
    }

    /// The server with least left, by the squares, of all.
    pub fn best_fit(&mut self, need: &Need) -> Option<usize> {
        let fit = |(at, load): (usize, &Load)| Some((self.left(&load.peaks_with(need))?, at));
        let best = self.loads.iter().enumerate().filter_map(fit).min();
        self.take(best.map(|(_, at)| at), need)
    }

    /// As best fit, with a tenant's peaks at all hours.
    pub fn by_peaks(&mut self, need: &Need) -> Option<usize> {
        let [cpu, memory, disk, connections, gps, _] = need.peaks();
        let day = |peak: u32| [peak as u16; 24];
        let flat = Need { hourly: [day(cpu), day(connections), day(gps)], memory, disk };
        let wanted = flat.peaks();
        let fit = |(at, load): (usize, &Load)| {
            // Flat days: any hour is the peak.
            let hour = |row: usize| load.hourly[row][0];
            let now = [hour(0), load.memory, load.disk, hour(1), hour(2), load.tenants];
            let figures = std::array::from_fn(|d| now[d] + wanted[d]);
            Some((self.left(&figures)?, at))
        };
        let best = self.loads.iter().enumerate().filter_map(fit).min();
        self.take(best.map(|(_, at)| at), &flat)
    }

    /// How many servers have tenants.
    pub fn used(&self) -> u32 {
        self.loads.iter().filter(|load| load.tenants > 0).count() as u32
    }
}
