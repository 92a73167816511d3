//! Measures a move between two durable clusters on this machine: the copy and
//! the drain beside bare pipes of the same rows, and what writers feel of
//! cut-overs there and back, on an idle machine, a busy one, and over slow
//! lines. Prints each figure with its goal and what the prototype measured,
//! and writes `target/bench/move.json`.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use webhost_tests::measure::figures::Figures;
use webhost_tests::measure::hogs;
use webhost_tests::measure::series::{busy, copy, large, pause};
use webhost_tests::measure::town::Town;

/// Measures moves.
#[derive(Parser)]
struct Arguments {
    /// Positions of the tenant that moves. From five millions on, only `large`
    /// runs unless series are named.
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Tenants of the source.
    #[arg(long, default_value_t = 150)]
    tenants: u32,
    /// Cut-overs of the first series; the others have fewer.
    #[arg(long, default_value_t = 100)]
    cut_overs: u32,
    /// Which series run; all but `large` where none is named.
    #[arg(long, value_delimiter = ',')]
    series: Vec<Series>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Series {
    Copy,
    Drain,
    Pause,
    Hogs,
    Slow,
    Busy,
    Large,
}

fn main() -> anyhow::Result<()> {
    // The same program is also the processes that it starts.
    match std::env::args().nth(1).as_deref() {
        Some(hogs::ARGUMENT) => hogs::work(),
        Some(large::ARGUMENT) => runtime(false)?
            .block_on(webhost_agent::mover::child::main())
            .map_err(anyhow::Error::from),
        _ => runtime(true)?.block_on(measure()),
    }
}

fn runtime(many: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = if many {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()
}

async fn measure() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wanted = |series| match arguments.series.as_slice() {
        [] if arguments.rows >= 5_000_000 => series == Series::Large,
        [] => series != Series::Large,
        named => named.contains(&series),
    };
    let mut figures = Figures::default();
    let mut town = Town::build(arguments.tenants, arguments.rows).await?;
    if wanted(Series::Pause) {
        let series = pause::Series {
            name: "pause",
            cut_overs: arguments.cut_overs,
            dedicated: false,
            hogs: 0,
            round_trip: Duration::ZERO,
            goals: Some([10.0, 40.0, 4.0]),
            prototype: ["10.7 (max 51)", "4.9 (max 17.6)"],
        };
        pause::run(&mut town, &mut figures, &series).await?;
    }
    if wanted(Series::Hogs) {
        let series = pause::Series {
            name: "pause, 6 busy loops",
            cut_overs: arguments.cut_overs.min(40),
            dedicated: true,
            hogs: 6,
            round_trip: Duration::ZERO,
            goals: Some([25.0, 90.0, f64::INFINITY]),
            prototype: ["28 (max 99)", "18.9 (max 53)"],
        };
        pause::run(&mut town, &mut figures, &series).await?;
    }
    if wanted(Series::Slow) {
        for (name, millis, prototype) in [
            ("pause, 2 ms round trip", 2, ["18.6 (max 114)", "18.6 (max 34)"]),
            ("pause, 20 ms round trip", 20, ["63.5 (max 75)", "88.7 (max 90)"]),
        ] {
            let series = pause::Series {
                name,
                cut_overs: arguments.cut_overs.min(20),
                dedicated: true,
                hogs: 0,
                round_trip: Duration::from_millis(millis),
                goals: None,
                prototype,
            };
            pause::run(&mut town, &mut figures, &series).await?;
        }
    }
    if wanted(Series::Busy) {
        busy::run(&mut town, &mut figures).await?;
    }
    if wanted(Series::Copy) {
        copy::copy(&mut town, &mut figures).await?;
    }
    if wanted(Series::Drain) {
        copy::drain(&mut town, &mut figures).await?;
    }
    if wanted(Series::Large) {
        large::run(&mut town, &mut figures).await?;
    }
    figures.write("move")
}
