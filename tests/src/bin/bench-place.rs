//! How fast and how well tenants are placed, beside plain packers on the same
//! tenants, how fast the fleet is planned, and how fast places are durable in a
//! PostgreSQL of its own. One thread but for that.
//!
//! Prints each figure with its goal and writes `target/bench/place.json`. The
//! traces of real machines are read from the folder that the first argument or
//! `PACKING_DATA` names, in its `planetlab/`; without it, the run says so and
//! leaves them out. `ONLY` names parts, with commas between: small, large,
//! static, churn, month, durable, planetlab.

use std::io::Write;
use std::path::PathBuf;

use webhost_tests::measure::figures::Figures;
use webhost_tests::packing::planetlab::{By, pack};
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
    if wanted("planetlab") {
        planetlab(data.map(PathBuf::from), &mut figures)?;
    }
    figures.write("place")
}

fn planetlab(data: Option<PathBuf>, figures: &mut Figures) -> anyhow::Result<()> {
    let Some(folder) = data else {
        let note = "PlanetLab: left out; name the folder with the traces as the first argument or \
                    in PACKING_DATA";
        return Ok(writeln!(std::io::stdout().lock(), "{note}")?);
    };
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
