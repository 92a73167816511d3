//! One step of one move: checked, written down, given to a child, and to the
//! next child when that one died.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use webhost_proto::wire::{self, command_reply};

use super::record::Record;
use super::{Supervisor, Way, failed, lock, process};
use crate::mover::child::{Line, Order, Reach};
use crate::mover::error::{Kind, Side};
use crate::mover::spec::{Done, Progress, Spec, Step};

/// How long after its death a child is started again; doubled up to the last.
const RESTART: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(900)];
/// Deaths in a row without an answer after which the step is given back.
const DEATHS: usize = 20;
/// How often a switch that stopped part way is taken up again before it is
/// given back.
const SETTLES: usize = 30;

/// Whether a step asked for by a command is written down, to be taken up again
/// after a crash. A preflight changes nothing, and a recovery that was asked for
/// is asked for again.
fn on_record(step: Step) -> bool {
    !matches!(step, Step::Preflight | Step::Recover)
}

/// How a step came to its end.
pub(super) struct Ended {
    pub(super) line: Line,
    /// The command for a later step ended it.
    pub(super) by_another: bool,
}

impl Supervisor {
    pub(super) async fn step(
        &self,
        order: wire::MoveStep,
        progress: watch::Sender<Option<wire::MoveProgress>>,
    ) -> command_reply::Outcome {
        let spec = match order.spec.as_ref().map(Spec::from_wire) {
            Some(Ok(spec)) => spec,
            Some(Err(error)) => return failed(Kind::Refused, error.to_string()),
            None => return failed(Kind::Refused, "move step without spec".into()),
        };
        if order.step() == wire::MoveStepKind::Pause {
            return self.pause(&spec);
        }
        let Some(step) = Step::from_wire(order.step()) else {
            return failed(Kind::Refused, format!("unknown move step {}", order.step));
        };
        if let Err(reason) = self.acceptable(&spec, step) {
            return failed(Kind::Refused, reason);
        }
        let before = self.inner.records.get(spec.move_id);
        let record = Record::new(spec.clone(), step);
        if on_record(step)
            && let Err(error) = self.inner.records.put(record)
        {
            return failed(Kind::Retry, format!("the move can't be written down: {error}"));
        }
        self.interrupt(&spec, step);
        match self.settled(&spec, step, &progress).await {
            Line::Done(Done::Preflight(report)) if report.refuses() => {
                command_reply::Outcome::Failed(wire::Failed {
                    kind: Kind::Refused.to_wire().into(),
                    message: report.problems().join("; "),
                    preflight: Some(report.to_wire()),
                })
            }
            Line::Done(done) => {
                self.ended(&spec, step, &done);
                command_reply::Outcome::MoveStepDone(done.to_wire(step))
            }
            Line::Failed { kind, message } => {
                // A preflight leaves nothing that would ever be taken off the
                // list again, and after an undo was asked for that is shown.
                let latest = self.inner.records.get(spec.move_id);
                if latest.is_some_and(|record| record.step == step) {
                    self.show(&spec, step, &message);
                    let beside =
                        step == Step::CleanUp || (step == Step::Finish && spec.old_copy_gone);
                    if beside && kind == Kind::Refused {
                        self.as_before(&spec, before);
                    }
                }
                failed(kind, message)
            }
            Line::Progress(_) => failed(Kind::Interrupted, "the mover gave no outcome".into()),
        }
    }

    /// A step that an operator asks for, while no agent runs.
    pub async fn by_hand(
        &self,
        spec: &Spec,
        step: Step,
        progress: &watch::Sender<Option<wire::MoveProgress>>,
    ) -> Line {
        let ended = self.locked(spec, step, progress).await;
        if let Line::Done(done) = &ended.line
            && step != Step::Recover
        {
            self.ended(spec, step, done);
        }
        ended.line
    }

    /// One step, and a switch until it is settled: one that stopped part way
    /// may have left nobody active, which can't wait for the coordinator to
    /// ask again. The next try reads the fence rows first.
    async fn settled(
        &self,
        spec: &Spec,
        step: Step,
        progress: &watch::Sender<Option<wire::MoveProgress>>,
    ) -> Line {
        let switches = matches!(step, Step::CutOver | Step::RollBack);
        let mut tries = 0;
        loop {
            let ended = self.locked(spec, step, progress).await;
            let Line::Failed { kind: Kind::Interrupted, message } = &ended.line else {
                return ended.line;
            };
            let ours = self.inner.records.get(spec.move_id).is_some_and(|now| now.step == step);
            if !switches || ended.by_another || !ours || tries >= SETTLES {
                return ended.line;
            }
            tracing::warn!(move_id = %spec.move_id, %step, %message, "the switch stopped part way; taking it up again");
            let pause = RESTART.get(tries).or(RESTART.last()).copied().unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.setup.shutdown.cancelled() => return ended.line,
            }
            tries += 1;
        }
    }

    /// Whether this node may carry the order out at all.
    fn acceptable(&self, spec: &Spec, step: Step) -> Result<(), String> {
        if self.inner.setup.database.is_none() {
            return Err("this node takes no part in moves: it has no [postgres], or [moves] enabled = false".into());
        }
        // A copy is deleted by the agent beside it, and who serves is found out
        // by the one that is left, which ends the move then.
        let at_the_target = match step {
            Step::CleanUp | Step::Recover => true,
            Step::Finish => spec.old_copy_gone,
            _ => false,
        };
        let ours_as_target = at_the_target && spec.target_node == self.inner.setup.node;
        if spec.source_node != self.inner.setup.node && !ours_as_target {
            return Err(format!(
                "the move starts at node {}, this is node {}",
                spec.source_node, self.inner.setup.node
            ));
        }
        for other in self.inner.records.all() {
            if other.spec.tenant != spec.tenant {
                continue;
            }
            if other.spec.epoch > spec.epoch {
                return Err(format!(
                    "the order is for epoch {} of tenant {}, epoch {} has been seen",
                    spec.epoch, spec.tenant, other.spec.epoch
                ));
            }
            if other.spec.move_id != spec.move_id {
                return Err(format!(
                    "move {} of tenant {} is open here: finish or undo it first",
                    other.spec.move_id, spec.tenant
                ));
            }
            if other.spec.epoch != spec.epoch || other.spec.target_node != spec.target_node {
                return Err(format!("move {} began with another epoch or target", spec.move_id));
            }
        }
        Ok(())
    }

    pub(super) fn ended(&self, spec: &Spec, step: Step, done: &Done) {
        if matches!(done, Done::Finish | Done::Undo | Done::Abandon | Done::CleanUp(_)) {
            // Left behind it would only be recovered once more.
            if let Err(error) = self.inner.records.remove(spec.move_id) {
                tracing::warn!(%error, "the record of an ended move stays");
            }
            lock(&self.inner.status).remove(&spec.move_id);
        } else if on_record(step) {
            self.show(spec, step, "waiting");
        }
    }

    /// Ends what runs where a repetition resumes it; its own command is
    /// answered as interrupted. The rest goes on to its end.
    fn pause(&self, spec: &Spec) -> command_reply::Outcome {
        if let Some((step, stop)) = lock(&self.inner.running).get(&spec.tenant)
            && step.ends_for_a_pause()
            && self.inner.records.get(spec.move_id).is_some()
        {
            stop.cancel();
        }
        command_reply::Outcome::MoveStepDone(wire::MoveStepDone {
            step: wire::MoveStepKind::Pause.into(),
            result: None,
        })
    }

    /// A step beside one database that was refused did nothing, and reads no
    /// fence row of the other side: what was on record before it must not be
    /// forgotten over it, and what was not must not stand in a later move's way.
    fn as_before(&self, spec: &Spec, before: Option<Record>) {
        let restored = match before {
            Some(record) => self.inner.records.put(record),
            None => {
                lock(&self.inner.status).remove(&spec.move_id);
                self.inner.records.remove(spec.move_id)
            }
        };
        if let Err(error) = restored {
            tracing::warn!(%error, "the record of a refused step stays");
        }
    }

    /// Nobody waits for the end of a long step that is undone anyway, nor for
    /// that of a way back. A cut-over is not interrupted: it takes moments, and
    /// may be irrevocable.
    fn interrupt(&self, spec: &Spec, next: Step) {
        if let Some((step, stop)) = lock(&self.inner.running).get(&spec.tenant)
            && step.ends_for(next)
        {
            stop.cancel();
        }
    }

    /// One step under the tenant's lock.
    pub(super) async fn locked(
        &self,
        spec: &Spec,
        step: Step,
        progress: &watch::Sender<Option<wire::MoveProgress>>,
    ) -> Ended {
        let turn = Arc::clone(lock(&self.inner.locks).entry(spec.tenant).or_default());
        let _turn = turn.lock().await;
        let stop = CancellationToken::new();
        lock(&self.inner.running).insert(spec.tenant, (step, stop.clone()));
        // Whoever comes after this line ends us; who came before is on record.
        let latest = self.inner.records.get(spec.move_id).map(|record| record.step);
        if latest.is_some_and(|latest| latest != step && step.ends_for(latest)) {
            stop.cancel();
        }
        let children = self.children(spec, step, progress, &stop);
        let line = self.with_requests(spec, step, children).await;
        lock(&self.inner.running).remove(&spec.tenant);
        Ended { line, by_another: stop.is_cancelled() }
    }

    /// One child after another, until one answers.
    async fn children(
        &self,
        spec: &Spec,
        step: Step,
        progress: &watch::Sender<Option<wire::MoveProgress>>,
        stop: &CancellationToken,
    ) -> Line {
        if on_record(step) || self.inner.records.get(spec.move_id).is_some() {
            self.show(spec, step, if step == Step::Recover { "recovering" } else { "running" });
        }
        let order = match self.order(spec) {
            Ok(order) => order,
            Err(message) => return Line::Failed { kind: Kind::Retry, message },
        };
        for death in 0..DEATHS {
            let report = |latest: Progress| {
                if let Some(status) = lock(&self.inner.status).get_mut(&spec.move_id) {
                    status.progress = latest.clone();
                }
                progress.send_replace(Some(latest.to_wire(step)));
            };
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return Line::Failed {
                    kind: Kind::Interrupted,
                    message: format!("step {step} was ended by what was asked for after it"),
                },
                ended = process::run(&self.inner.setup, &order, step, report) => ended,
                () = self.inner.setup.shutdown.cancelled() => return Line::Failed {
                    kind: Kind::Interrupted,
                    message: "the agent is stopping; the step resumes when it is back".into(),
                },
            };
            match ended {
                Ok(line) => return line,
                Err(reason) => {
                    tracing::warn!(move_id = %spec.move_id, %step, %reason, "the mover died; starting it again");
                }
            }
            let pause = RESTART.get(death).or(RESTART.last()).copied().unwrap_or_default();
            tokio::time::sleep(pause).await;
        }
        Line::Failed {
            kind: Kind::Interrupted,
            message: format!("the mover died {DEATHS} times in step {step}; see the agent's log"),
        }
    }

    fn order(&self, spec: &Spec) -> Result<Order, String> {
        let setup = &self.inner.setup;
        let source = setup.database.clone().ok_or("this node has no tenants' database")?;
        let target = match &setup.way {
            Way::Tunnel(identify) => Reach::Tunnel(identify()?),
            Way::Direct(login) => Reach::Direct(login.clone()),
        };
        let mut spec = spec.clone();
        let ours = setup.max_rows_per_second;
        spec.max_rows_per_second = match (spec.max_rows_per_second, ours) {
            (0, limit) | (limit, 0) => limit,
            (a, b) => a.min(b),
        };
        let here = if spec.source_node == setup.node { Side::Source } else { Side::Target };
        let across = match here {
            Side::Source => None,
            Side::Target => setup.sources.get(&spec.source_node).cloned(),
        };
        Ok(Order {
            spec,
            rules: setup.rules.clone(),
            source,
            target,
            here,
            across,
            scratch: self.inner.records.dir().to_path_buf(),
            copy_part_pages: setup.copy_part_pages,
            copy_streams: setup.copy_streams,
            way_back_verify_s: setup.way_back_verify_s,
        })
    }
}
