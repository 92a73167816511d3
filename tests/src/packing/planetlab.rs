//! CPU traces of real virtual machines on two consecutive days: packed by the
//! first, held against the second.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use webhost_coordinator::fleet::Need;
use webhost_coordinator::fleet::rooms::{Ask, Rooms};
use webhost_proto::units::{Bytes, MilliCpu};

use super::ax52;

/// Samples a day: one every five minutes.
const SAMPLES: usize = 288;

/// A day's samples by machine, in percent of a core.
type Day = BTreeMap<String, Vec<u32>>;

/// How the second day went on servers that were packed by the first.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// Machines that are on both days.
    pub machines: usize,
    /// No fewer servers could carry the first day's figures.
    pub bound: u32,
    /// Servers.
    pub servers: u32,
    /// Samples of a server's second day above the limit.
    pub above: usize,
}

/// What a machine is packed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// 24 hourly 95th percentiles.
    Hours,
    /// Its highest sample, all day.
    Peak,
}

fn read(file: &Path) -> anyhow::Result<Day> {
    let out = Command::new("gzip").arg("-dc").arg(file).output().context("gzip -dc")?;
    ensure!(out.status.success(), "gzip -dc {} failed", file.display());
    let mut day = Day::new();
    for line in String::from_utf8(out.stdout)?.lines() {
        let mut fields = line.split(',');
        let name = fields.next().context("a name")?.to_owned();
        let samples: Vec<u32> = fields.filter_map(|field| field.trim().parse().ok()).collect();
        // The first line may name the columns.
        if samples.len() == SAMPLES {
            day.insert(name, samples);
        }
    }
    ensure!(!day.is_empty(), "{} has no samples", file.display());
    Ok(day)
}

/// The 95th percentile of an hour's twelve samples: the one at 95 % of the way
/// through them in order, rounded down, which is the second highest.
fn p95(samples: &[u32]) -> u32 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = sorted.len().saturating_sub(1) * 95 / 100;
    sorted.get(at).copied().unwrap_or(0)
}

fn need(samples: &[u32], by: By) -> Need {
    let mut need = Need::default();
    let most = samples.iter().copied().max().unwrap_or(0);
    for (hour, part) in samples.chunks(SAMPLES / 24).enumerate().take(24) {
        let percent = if by == By::Hours { p95(part) } else { most };
        need.hourly[0][hour] = (percent * 10) as u16;
    }
    need
}

/// Packs the machines of `folder` on servers of 16 cores, filled to 80 %.
///
/// # Errors
/// When the files can't be read.
pub fn pack(folder: &Path, by: By) -> anyhow::Result<Packed> {
    let first = read(&folder.join("20110411.csv.gz"))?;
    let second = read(&folder.join("20110412.csv.gz"))?;
    let both: Vec<(&Vec<u32>, &Vec<u32>)> =
        first.iter().filter_map(|(name, day)| Some((day, second.get(name)?))).collect();
    let mut nodes = ax52::servers(both.len() as u32);
    for node in &mut nodes {
        // Only CPU counts here.
        node.max_tenants = 1_000_000;
        node.shape.cpu = MilliCpu(16_000);
        node.shape.memory = Bytes(1 << 50);
    }
    let mut rooms = Rooms::new(&nodes, 80);
    let mut loads: BTreeMap<u32, [u32; SAMPLES]> = BTreeMap::new();
    let mut sums = [0_u64; 24];
    for (train, test) in &both {
        let need = need(train, by);
        let at = rooms.choose(&Ask::of(&need)).context("a server for each machine")?;
        rooms.charge(at, &need);
        let load = loads.entry(at).or_insert([0; SAMPLES]);
        for (sum, sample) in load.iter_mut().zip(test.iter()) {
            *sum += sample * 10;
        }
        for (sum, hour) in sums.iter_mut().zip(need.hourly[0]) {
            *sum += u64::from(hour);
        }
    }
    let above = loads.values().flatten().filter(|load| **load > 12_800).count();
    let bound = sums.into_iter().max().unwrap_or(0).div_ceil(12_800) as u32;
    Ok(Packed { machines: both.len(), bound, servers: loads.len() as u32, above })
}
