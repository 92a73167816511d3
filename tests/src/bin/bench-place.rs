//! How fast and how well tenants are placed, beside plain packers on the same
//! tenants, how fast the fleet is planned, and how fast places are durable in a
//! PostgreSQL of its own. One thread but for that.
//!
//! Prints each figure with its goal and writes `target/bench/place.json`. The
//! traces of real machines and the published vectors are read from the folder
//! that the first argument or `PACKING_DATA` names, in its `planetlab/`,
//! `openb/` and `vbp/`; what is missing the run names and leaves out. `ONLY`
//! names parts, with commas between: small, large, static, churn, month,
//! durable, planetlab, openb, vbp.

use std::io::Write;
use std::path::Path;

use webhost_tests::measure::figures::Figures;
use webhost_tests::packing::planetlab::{By, pack};
use webhost_tests::packing::vectors::{self, Packed};
use webhost_tests::packing::{durable, quality, speed};

fn main() -> anyhow::Result<()> {
    let data = std::env::args_os().nth(1).or_else(|| std::env::var_os("PACKING_DATA"));
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|one| one == part);
    let mut figures = Figures::default();
    for (part, servers) in [("small", 1000), ("large", 10_000)] {
        if wanted(part) {
            speed::all(servers, &mut figures)?;
        }
    }
    if wanted("static") {
        quality::fixed(&mut figures)?;
    }
    if wanted("churn") {
        quality::churn(&mut figures);
    }
    if wanted("month") {
        quality::month(&mut figures);
    }
    if wanted("durable") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(durable::all(&mut figures))?;
    }
    let given = [("planetlab", planetlab as Part), ("openb", openb), ("vbp", vbp)];
    for (part, pack) in given.into_iter().filter(|(part, _)| wanted(part)) {
        let folder = data.as_deref().map(Path::new).filter(|data| data.join(part).is_dir());
        match folder {
            Some(folder) => pack(folder, &mut figures)?,
            None => writeln!(
                std::io::stdout().lock(),
                "{part}: left out; name the folder that holds {part}/ as the first argument or \
                 in PACKING_DATA"
            )?,
        }
    }
    figures.write("place")
}

/// What packs data of that folder.
type Part = fn(&Path, &mut Figures) -> anyhow::Result<()>;

fn planetlab(folder: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let folder = folder.join("planetlab");
    let hours = pack(&folder, By::Hours)?;
    let name = format!("PlanetLab, {} machines by hours: servers", hours.machines);
    figures.less(&name, f64::from(hours.servers), "", Some(12.0));
    figures.less("  samples of the next day above 80 %", hours.above as f64, "", Some(0.0));
    figures.less("  lower bound", f64::from(hours.bound), "", None);
    let peaks = pack(&folder, By::Peak)?;
    figures.less("  baseline, by peaks", f64::from(peaks.servers), "", None);
    Ok(())
}

fn openb(folder: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let pods = vectors::openb(folder)?;
    published(&format!("OpenB, {} pods", pods.vectors), &pods, 900.0, figures);
    figures.less("  in", pods.took.as_secs_f64(), "s", None);
    Ok(())
}

fn vbp(folder: &Path, figures: &mut Figures) -> anyhow::Result<()> {
    let all = vectors::new_500(folder)?;
    published("\"New\", 180 instances of 500 vectors", &all, 29_100.0, figures);
    let name = "  the slowest instance";
    figures.less(name, all.took.as_secs_f64(), "s", Some(1.0));
    Ok(())
}

fn published(name: &str, packed: &Packed, goal: f64, figures: &mut Figures) {
    let goal = Some(goal);
    figures.less(&format!("{name}: servers"), f64::from(packed.given), "", goal);
    figures.less("  largest first", f64::from(packed.largest_first), "", goal);
    figures.less("  lower bound by volume", f64::from(packed.bound), "", None);
}
