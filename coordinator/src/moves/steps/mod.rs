//! The effects: for each step the command that asks for it, and what its
//! answer teaches. One file per step, in the order of a move; `reply` reads
//! what they have in common.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use webhost_proto::ids::{Epoch, MoveId, NodeId, TenantId};
use webhost_proto::wire::{self, command, command_reply, move_step_done};

use super::durable::Durable;
use super::next::Outcome;
use super::state::{Step, Undo};
use super::timing::later;
use crate::decide::Mode;

mod abandon;
mod clean_up;
mod close_tunnel;
mod copy;
mod cut_over;
mod drain;
mod finish;
mod guard;
mod open_tunnel;
mod pause;
mod preflight;
mod recover;
mod reply;
mod roll_back;
mod undo;
mod verify;
mod way_back;

pub use reply::Answer;

/// What a step's command is made of.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The move.
    pub id: MoveId,
    /// Whom it moves.
    pub tenant: TenantId,
    /// From where.
    pub source: NodeId,
    /// To where.
    pub target: NodeId,
    /// The tenant's epoch on the source.
    pub epoch: Epoch,
    /// What the move remembers.
    pub durable: &'a Durable,
    /// The coordinator's clock.
    pub now: Timestamp,
    /// Rows per second that the copy may reach; 0 is unlimited.
    pub max_rows_per_second: u64,
}

impl Context<'_> {
    /// Which node holds the copy that serves nobody, after the switch.
    const fn old_copy(&self) -> NodeId {
        if self.durable.rolled_back { self.target } else { self.source }
    }

    /// Which node serves the tenant, after the switch.
    const fn serving(&self) -> NodeId {
        if self.durable.rolled_back { self.source } else { self.target }
    }

    /// When the way back ends: fixed at the switch. Before it, what it would
    /// be by now, which tells the agents that there will be one.
    fn way_back_until(&self) -> Option<Timestamp> {
        let durable = self.durable;
        let planned = Duration::from_secs(durable.way_back_s);
        durable.way_back_until.or((!planned.is_zero()).then(|| later(self.now, planned)))
    }
}

/// A command and the node that it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Whose agent.
    pub node: NodeId,
    /// What it is asked for.
    pub kind: command::Kind,
}

/// What a good answer teaches the coordinator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learned {
    /// What is added to the move's `result`, under the step's name.
    pub result: Option<Value>,
    /// Where the tunnel listens.
    pub tunnel: Option<String>,
    /// It takes HTTP requests, too.
    pub takes_http: bool,
    /// The epoch under which the target is active.
    pub epoch: Option<Epoch>,
    /// The epoch under which the source is active again.
    pub back_epoch: Option<Epoch>,
    /// Rows that would stay behind, of a preflight.
    pub rows_left_behind: Option<u64>,
    /// What happened, for a person.
    pub message: String,
}

/// The command that asks for a step; none where no agent takes part.
pub fn command(step: Step, context: &Context<'_>) -> Option<Outgoing> {
    match step {
        Step::CutOver | Step::RollBack if context.durable.asked_target => {
            Some(recover::command(context))
        }
        Step::OpenTunnel => open_tunnel::command(context),
        Step::Preflight => Some(preflight::command(context)),
        Step::Guard => Some(guard::command(context)),
        Step::Copy => Some(copy::command(context)),
        Step::Drain => Some(drain::command(context)),
        Step::Verify => Some(verify::command(context)),
        Step::CutOver => Some(cut_over::command(context)),
        Step::Route | Step::RouteBack | Step::Kept => None,
        Step::WayBack => Some(way_back::command(context)),
        Step::RollBack => Some(roll_back::command(context)),
        Step::Finish => Some(finish::command(context)),
        Step::CleanUp => Some(clean_up::command(context, context.old_copy())),
        Step::CloseTunnel => Some(close_tunnel::command(context)),
    }
}

/// The command that ends a running step for a pause; none where a pause waits
/// for the step's own end.
pub fn pause_command(step: Step, context: &Context<'_>) -> Option<Outgoing> {
    pause::command(step, context)
}

/// The command that asks for a step back.
pub fn undo_command(undo: Undo, context: &Context<'_>) -> Outgoing {
    match undo {
        Undo::Source => undo::command(context),
        Undo::Abandon => abandon::command(context),
        Undo::CleanTarget => clean_up::command(context, context.target),
        Undo::Tunnel => close_tunnel::command(context),
    }
}

/// What an agent's ending reply to a step's command means.
pub fn read(step: Step, reply: &command_reply::Outcome, context: &Context<'_>) -> Answer {
    if context.durable.asked_target && matches!(step, Step::CutOver | Step::RollBack) {
        return recover::read(step, reply, context);
    }
    let answer = reply::read(reply, |reply| match step {
        Step::OpenTunnel => open_tunnel::done(reply),
        Step::Preflight => preflight::done(reply),
        Step::Guard => guard::done(reply),
        Step::Copy => copy::done(reply),
        Step::Drain => drain::done(reply),
        Step::Verify => verify::done(reply),
        Step::CutOver => cut_over::done(reply, context.epoch),
        Step::Route | Step::RouteBack | Step::Kept => None,
        Step::WayBack => way_back::done(reply),
        Step::RollBack => roll_back::done(reply, context.durable.new_epoch),
        Step::Finish => finish::done(reply),
        Step::CleanUp => clean_up::done(reply),
        Step::CloseTunnel => close_tunnel::done(reply),
    });
    // A preflight that refuses reports as well.
    match (step, reply) {
        (Step::Preflight, command_reply::Outcome::Failed(failed)) => {
            Answer { learned: preflight::refused(failed), ..answer }
        }
        _ => answer,
    }
}

/// What an agent's ending reply to the command of a step back means.
pub fn read_undo(undo: Undo, reply: &command_reply::Outcome) -> Answer {
    reply::read(reply, |reply| match undo {
        Undo::Source => undo::done(reply),
        Undo::Abandon => abandon::done(reply),
        Undo::CleanTarget => clean_up::done(reply),
        Undo::Tunnel => close_tunnel::done(reply),
    })
}

/// One step of the source's mover.
fn move_step(context: &Context<'_>, step: wire::MoveStepKind) -> Outgoing {
    let Context { id, tenant, source, target, epoch, durable, max_rows_per_second, .. } = *context;
    let spec = wire::MoveSpec {
        move_id: id.to_wire(),
        tenant_id: tenant.to_wire(),
        epoch: epoch.0,
        source_node_id: source.to_wire(),
        target_node_id: target.to_wire(),
        target_tunnel: durable.target_tunnel.clone(),
        ticket: durable.ticket.as_ref().map(super::durable::Ticket::to_wire).unwrap_or_default(),
        target_place: durable.target_place.clone(),
        source_place: durable.source_place.clone(),
        target_http: durable.target_http,
        tenant_host: durable.tenant_host.clone(),
        max_rows_per_second,
        target_dedicated: durable.wanted.mode == Mode::SingleTenant.as_str(),
        retain_from_us: durable.retain_from.map_or(0, Timestamp::as_microsecond),
        way_back_until_us: context.way_back_until().map_or(0, Timestamp::as_microsecond),
        old_copy_gone: durable.forgotten.is_some(),
    };
    let kind = command::Kind::MoveStep(wire::MoveStep { spec: Some(spec), step: step.into() });
    Outgoing { node: source, kind }
}

/// The result of a `MoveStepDone` of that step; the outer none is another
/// reply, the inner one a step without figures.
fn step_done(
    reply: &command_reply::Outcome,
    step: wire::MoveStepKind,
) -> Option<Option<&move_step_done::Result>> {
    match reply {
        command_reply::Outcome::MoveStepDone(done) if done.step() == step => {
            Some(done.result.as_ref())
        }
        _ => None,
    }
}

/// `micros` since the epoch as a time; none where it is no time.
fn timestamp(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

impl Learned {
    fn saying(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    fn with(mut self, result: Value) -> Self {
        self.result = Some(result);
        self
    }
}

/// Done, with nothing to learn, for steps without figures.
fn plain(
    reply: &command_reply::Outcome,
    step: wire::MoveStepKind,
    message: &str,
) -> Option<Learned> {
    step_done(reply, step).map(|_| Learned::saying(message))
}

#[cfg(test)]
mod tests;
