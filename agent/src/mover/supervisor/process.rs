//! One child process for one step.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::Setup;
use crate::mover::child::{Line, Order};
use crate::mover::requests::{PARKED, Word};
use crate::mover::spec::{Progress, Step};

/// One line of a child.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Said {
    Line(Line),
    Word(Word),
}

/// Starts a child, gives it the order and the step, and waits for its answer.
/// The child is killed when this future is dropped.
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
    // A child that died at once is told by its exit below.
    let sent = input.write_all(&text).await;
    let mut lines = BufReader::new(output).lines();
    let answer = loop {
        match lines.next_line().await {
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
                Err(error) => return Err(words("the mover's answer can't be read", &error)),
            },
            Ok(None) => break None,
            Err(error) => return Err(words("the mover's answer can't be read", &error)),
        }
    };
    drop(input);
    let status = child.wait().await.map_err(|error| words("waiting for the mover", &error))?;
    match answer {
        Some(answer) => Ok(answer),
        None => Err(match sent {
            Ok(()) => format!("it ended with {status} and no answer"),
            Err(error) => format!("it ended with {status} before it was told its step: {error}"),
        }),
    }
}
