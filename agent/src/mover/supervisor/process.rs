//! One child process for one step, and its end when it does not come to one.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::Setup;
use crate::mover::child::{Line, Order, Said};
use crate::mover::fail;
use crate::mover::requests::{PARKED, Word};
use crate::mover::spec::{Progress, Step};

/// How long a child is borne with. To kill one is safe at any moment: its
/// sessions end with it, and the next child goes on from the fence rows.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a word of it: many times the pause between two signs of life.
    pub silent: Duration,
    /// While writers wait at its fence, whatever it says, and in a switch
    /// without a word of it: many times what a switch takes, and less than the
    /// databases' own timeouts.
    pub fence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { silent: Duration::from_secs(5), fence: Duration::from_secs(2) }
    }
}

/// Longer than any test lasts.
const WITHOUT_END: Duration = Duration::from_secs(24 * 3600);

impl Patience {
    /// What an agent has, but for one whose movers a test holds.
    pub fn of_an_agent() -> Self {
        if fail::holds() {
            return Self { silent: WITHOUT_END, fence: WITHOUT_END };
        }
        Self::default()
    }
}

/// The clocks that run against a child.
struct Watch {
    patience: Patience,
    heard: Instant,
    fence: Option<Instant>,
}

impl Watch {
    /// Where nobody may serve the tenant, even silence is borne with less.
    fn new(mut patience: Patience, step: Step) -> Self {
        if matches!(step, Step::CutOver | Step::RollBack | Step::Recover) {
            patience.silent = patience.silent.min(patience.fence);
        }
        Self { patience, heard: Instant::now(), fence: None }
    }

    fn silent_until(&self) -> Instant {
        self.heard + self.patience.silent
    }

    fn until(&self) -> Instant {
        let fence = self.fence.map(|since| since + self.patience.fence);
        fence.map_or(self.silent_until(), |fence| fence.min(self.silent_until()))
    }

    /// Why patience ended.
    fn over(&self) -> String {
        let Patience { silent, fence } = self.patience;
        if self.silent_until() <= Instant::now() {
            format!("it said nothing for {silent:?} and was killed")
        } else {
            format!("writers waited at its fence for {fence:?} and it was killed")
        }
    }
}

/// Kills, and waits for the end: its sessions end with the process. One that
/// the kernel can't end yet is kept from work by the mover's lock.
async fn kill(child: &mut Child, patience: Patience) {
    match timeout(patience.silent, child.kill()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "a mover could not be killed"),
        Err(_) => tracing::warn!("a killed mover has not ended yet"),
    }
}

/// Starts a child, gives it the order and the step, and waits for its answer.
/// The child is killed when this future is dropped, and when patience with it
/// ends.
///
/// # Errors
/// In words, when it ended without an answer.
pub(super) async fn run(
    setup: &Setup,
    order: &Order,
    step: Step,
    mut report: impl FnMut(Progress),
) -> Result<Line, String> {
    let words = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
    let mut child = Command::new(&setup.program)
        .args(&setup.arguments)
        .arg("mover")
        .envs(setup.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it logs goes where the agent's log goes.
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| words("the mover can't be started", &error))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the mover was started without pipes".into());
    };
    let mut text = serde_json::to_vec(order).map_err(|error| words("the order", &error))?;
    text.push(b'\n');
    text.extend(serde_json::to_vec(&step).map_err(|error| words("the step", &error))?);
    text.push(b'\n');
    let mut watch = Watch::new(setup.patience, step);
    // A child that died at once is told by its exit below.
    let Ok(sent) = timeout_at(watch.until(), input.write_all(&text)).await else {
        kill(&mut child, setup.patience).await;
        return Err(watch.over());
    };
    let mut lines = BufReader::new(output).lines();
    let answer = loop {
        let Ok(read) = timeout_at(watch.until(), lines.next_line()).await else {
            kill(&mut child, setup.patience).await;
            return Err(watch.over());
        };
        watch.heard = Instant::now();
        match read {
            Ok(Some(line)) => match serde_json::from_str::<Said>(&line) {
                Ok(Said::Line(Line::Progress(progress))) => report(progress),
                Ok(Said::Line(answer)) => break Some(answer),
                Ok(Said::Word(Word::Park)) => {
                    setup.hold.park(&order.spec).await;
                    // A child that died meanwhile is told by its exit below.
                    let answered = input.write_all(format!("{PARKED}\n").as_bytes()).await;
                    if let Err(error) = answered {
                        tracing::debug!(%error, "the mover asked to park and went away");
                    }
                }
                Ok(Said::Word(Word::Release(serving))) => {
                    setup.hold.release(&order.spec, serving);
                }
                Ok(Said::Word(Word::Alive)) => {}
                Ok(Said::Word(Word::AtFence)) => watch.fence = Some(Instant::now()),
                Ok(Said::Word(Word::OffFence)) => watch.fence = None,
                Err(error) => return Err(words("the mover's answer can't be read", &error)),
            },
            Ok(None) => break None,
            Err(error) => return Err(words("the mover's answer can't be read", &error)),
        }
    };
    drop(input);
    let ended = timeout(setup.patience.silent, child.wait()).await;
    if ended.is_err() {
        kill(&mut child, setup.patience).await;
    }
    match (answer, ended) {
        // Nothing that it could still do changes what it answered.
        (Some(answer), _) => Ok(answer),
        (None, Err(_)) => Err("it closed its output, did not end, and was killed".into()),
        (None, Ok(Err(error))) => Err(words("waiting for the mover", &error)),
        (None, Ok(Ok(status))) => Err(match sent {
            Ok(()) => format!("it ended with {status} and no answer"),
            Err(error) => format!("it ended with {status} before it was told its step: {error}"),
        }),
    }
}
