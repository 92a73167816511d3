//! Vectors that others published: the pods of a production cluster, and
//! instances made to be hard. They check the packer beside the fleets it is
//! made for.

use std::cmp::Reverse;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;
use uuid::Uuid;
use webhost_coordinator::fleet::need::{CPU, GPS};
use webhost_coordinator::fleet::simulate::{Outcome, Round, Simulation};
use webhost_coordinator::fleet::{MilliPoints, Need, NodeState, Policy};
use webhost_proto::ids::TenantId;
use webhost_proto::units::{Bytes, MilliCpu};

use super::ax52;

const MIB: u64 = 1 << 20;

/// How many servers a set of vectors took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packed {
    /// Vectors that are no larger than a server.
    pub vectors: u32,
    /// Servers, when they come in the given order.
    pub given: u32,
    /// Servers, when the largest come first, as in a drain.
    pub largest_first: u32,
    /// No fewer could hold them, by volume.
    pub bound: u32,
    /// What the slower of the two took.
    pub took: Duration,
}

fn pack(model: &NodeState, mut needs: Vec<Need>) -> Packed {
    let (given, one) = place(model, &needs);
    let limits = model.allowed(100);
    let share = |need: &Need| {
        let parts = need.peaks().into_iter().zip(limits);
        parts.map(|(peak, limit)| u64::from(peak) * 1_000_000 / u64::from(limit.max(1))).max()
    };
    needs.sort_by_cached_key(|need| Reverse(share(need)));
    let (sorted, other) = place(model, &needs);
    Packed {
        vectors: given.tenants,
        given: given.servers,
        largest_first: sorted.servers,
        bound: given.bound,
        took: one.max(other),
    }
}

/// Places one after another, then consolidates as long as that gives up
/// servers; answers what is left, and what that took.
fn place(model: &NodeState, needs: &[Need]) -> (Outcome, Duration) {
    // To the brim, and at once.
    let policy = Policy {
        relieve_to: 100,
        place_limit: 100,
        act_limit: 100,
        residency_h: 0,
        balance_moves: u32::MAX,
        ..Policy::default()
    };
    let ids = (1..).map(|n| TenantId(Uuid::from_u128(n)));
    let round = Round { come: ids.zip(needs.iter().copied()).collect(), ..Round::default() };
    let started = Instant::now();
    let mut simulation = Simulation::new(model, &policy);
    let mut before = u32::MAX;
    let mut outcome = simulation.step(&round);
    while outcome.servers < before {
        before = outcome.servers;
        outcome = simulation.step(&Round::default());
    }
    (outcome, started.elapsed())
}

/// The pods of Alibaba's cluster in the order of the file, on servers of 96
/// cores, 384 GiB and 8 GPUs. Pods that are larger than that are left out.
///
/// # Errors
/// When the file can't be read.
pub fn openb(folder: &Path) -> anyhow::Result<Packed> {
    let file = folder.join("openb/openb_pod_list_default.csv");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut needs = Vec::new();
    for line in text.lines().skip(1) {
        let figures: Vec<u32> =
            line.split(',').skip(1).take(4).map(|field| field.parse().unwrap_or(0)).collect();
        let [cpu, memory, gpus, of_each] = figures[..] else {
            anyhow::bail!("{}: a line has too few fields: {line}", file.display());
        };
        // Cores of that number are beyond an hourly figure; disk is not.
        let mut need = Need { memory, disk: cpu, ..Need::default() };
        need.hourly[GPS] = [u16::try_from(gpus * of_each)?; 24];
        needs.push(need);
    }
    let mut server = ax52::server(0);
    server.max_tenants = 1_000_000;
    server.shape.disk = Bytes(96_000 * MIB);
    server.shape.memory = Bytes(384 * 1024 * MIB);
    // In hundredths of a point, as a need counts them.
    server.shape.gps = MilliPoints(8000 * 10);
    Ok(pack(&server, needs))
}

/// The instances "New" with 500 vectors of 3, 5 or 10 figures, each figure of
/// 100: all bins together, and the longest time that one instance took.
///
/// # Errors
/// When the archive can't be read.
pub fn new_500(folder: &Path) -> anyhow::Result<Packed> {
    let archive = folder.join("vbp/New_instances.tar.gz");
    let dir = tempfile::tempdir()?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(dir.path()).arg("--strip-components=2");
    let status = tar.args(["--wildcards", "*_500_*.vbp"]).status().context("tar")?;
    ensure!(status.success(), "tar can't unpack {}", archive.display());
    let mut server = ax52::server(0);
    server.max_tenants = 1_000_000;
    server.shape.cpu = MilliCpu(100);
    let mut all = Packed::default();
    for entry in fs::read_dir(dir.path())? {
        let one = pack(&server, vectors(&fs::read_to_string(entry?.path())?)?);
        all.vectors += one.vectors;
        all.given += one.given;
        all.largest_first += one.largest_first;
        all.bound += one.bound;
        all.took = all.took.max(one.took);
    }
    ensure!(all.vectors == 180 * 500, "{} has {} vectors", archive.display(), all.vectors);
    Ok(all)
}

/// One instance: how many figures, their capacities, how many vectors, and a
/// line for each with its count at the end. A figure becomes an hour of CPU,
/// which has as many as are wanted with one limit.
fn vectors(text: &str) -> anyhow::Result<Vec<Need>> {
    let numbers = |line: &str| line.split_whitespace().map(str::parse).collect();
    let lines: Vec<Vec<u16>> = text.lines().map(numbers).collect::<Result<_, _>>()?;
    let [figures, capacities, _, vectors @ ..] = &lines[..] else {
        anyhow::bail!("an instance has {} lines", lines.len());
    };
    ensure!(capacities.iter().all(|one| *one == 100), "capacities other than 100");
    ensure!(figures[..] == [capacities.len() as u16], "{figures:?} figures");
    let mut needs = Vec::new();
    for line in vectors {
        let Some((count, figures)) = line.split_last() else { continue };
        ensure!(figures.len() == capacities.len(), "a line of {} figures", figures.len());
        let mut need = Need::default();
        need.hourly[CPU][..figures.len()].copy_from_slice(figures);
        needs.extend((0..*count).map(|_| need));
    }
    Ok(needs)
}
