//! One very large tenant, moved by a mover in a process of its own whose
//! memory is looked at all the time.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::Config;
use webhost_agent::mover::child::{Line, Login, Order, Reach, Said};
use webhost_agent::mover::spec::{Done, Step};

use super::a_move;
use crate::measure::figures::{Better, Figures, per_second};
use crate::measure::town::{Town, socket};

/// What makes the benchmark's own program a mover.
pub const ARGUMENT: &str = "--mover";

/// Copies, drains and compares the town's tenant.
///
/// # Errors
/// When a step fails.
pub async fn run(town: &mut Town, figures: &mut Figures) -> anyhow::Result<()> {
    let sides = town.sides(0, 0).await?;
    let run = a_move(town, &sides, true);
    let [source, target] = sides.mover();
    let order = Order {
        spec: run.spec,
        rules: run.rules,
        source: login(&source)?,
        target: Reach::Direct(login(&target)?),
        here: run.here,
        across: None,
        scratch: town.scratch().to_path_buf(),
        copy_part_pages: None,
        copy_streams: 0,
        way_back_verify_s: 0,
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("the mover")?;
    let mut input = child.stdin.take().context("a pipe")?;
    let output = child.stdout.take().context("a pipe")?;
    let mut lines = BufReader::new(output).lines();
    input.write_all(format!("{}\n", serde_json::to_string(&order)?).as_bytes()).await?;
    let name = |what: &str| format!("{} rows: {what}", town.rows);
    let mut most = 0;
    for step in [Step::Guard, Step::Copy, Step::Drain, Step::Verify] {
        input.write_all(format!("{}\n", serde_json::to_string(&step)?).as_bytes()).await?;
        let mut step_most = 0;
        let done = loop {
            tokio::select! {
                line = lines.next_line() => {
                    match serde_json::from_str(&line?.context("the mover died")?)? {
                        Said::Line(Line::Progress(_)) | Said::Word(_) => {}
                        Said::Line(Line::Done(done)) => break done,
                        Said::Line(Line::Failed { message, .. }) => bail!("{step}: {message}"),
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            step_most = step_most.max(resident_kib(&child)?);
        };
        most = most.max(step_most);
        if let Done::Copy(copied) = done {
            ensure!(copied.rows >= town.rows, "{} of {} rows", copied.rows, town.rows);
            let rate = per_second(town.rows, copied.piped_us);
            figures.more(&name("copy"), rate, "rows/s", None);
            let rate = per_second(town.rows, copied.piped_us + copied.indexes_us);
            figures.more(&name("copy with the indexes built"), rate, "rows/s", Some(200_000.0));
        }
    }
    let mib = most as f64 / 1024.0;
    figures.add(&name("the mover's memory, most"), mib, "MiB", Some(40.0), Better::Less, "");
    drop(input);
    ensure!(child.wait().await?.success(), "the mover ended badly");
    town.forget(&sides).await?;
    town.drop_target(sides).await
}

fn login(config: &Config) -> anyhow::Result<Login> {
    let socket = socket(config)?;
    let dir = socket.parent().context("a directory")?;
    Ok(Login {
        url: format!(
            "host={} user={} dbname={}",
            dir.display(),
            config.get_user().context("a user")?,
            config.get_dbname().context("a database")?
        ),
        password: None,
    })
}

/// The most memory that the process ever had, as the kernel counts it.
fn resident_kib(child: &Child) -> anyhow::Result<u64> {
    let pid = child.id().context("a process")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
