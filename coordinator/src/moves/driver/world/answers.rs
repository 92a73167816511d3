//! What an agent answers to a command.

use webhost_proto::wire::{
    self, FailureKind, MoveStepKind, command, command_reply, move_step_done,
};

/// The word for a command: the state of the move that sends it.
pub(crate) fn name(kind: &command::Kind) -> &'static str {
    match kind {
        command::Kind::ListTenants(_) => "list_tenants",
        command::Kind::OpenTunnel(_) => "open_tunnel",
        command::Kind::CloseTunnel(_) => "close_tunnel",
        command::Kind::MoveStep(step) => match step.step() {
            MoveStepKind::Preflight => "preflight",
            MoveStepKind::Guard => "guard",
            MoveStepKind::Copy => "copy",
            MoveStepKind::Drain => "drain",
            MoveStepKind::Verify => "verify",
            MoveStepKind::CutOver => "cut_over",
            MoveStepKind::Finish => "finish",
            MoveStepKind::Undo => "undo",
            MoveStepKind::WayBack => "way_back",
            MoveStepKind::RollBack => "roll_back",
            MoveStepKind::CleanUp => "clean_up",
            MoveStepKind::Abandon => "abandon",
            MoveStepKind::Recover => "recover",
            MoveStepKind::Pause => "pause",
            MoveStepKind::Unspecified => "unspecified",
        },
    }
}

/// The good answer to a command.
pub(crate) fn good(kind: &command::Kind) -> command_reply::Outcome {
    let step = match kind {
        command::Kind::ListTenants(_) => panic!("a move lists no tenants"),
        command::Kind::OpenTunnel(_) => {
            return command_reply::Outcome::TunnelOpened(wire::TunnelOpened {
                takes_http: false,
                address: "10.0.0.9:7403".into(),
            });
        }
        command::Kind::CloseTunnel(_) => {
            return command_reply::Outcome::TunnelClosed(wire::TunnelClosed {});
        }
        command::Kind::MoveStep(step) => step,
    };
    let epoch = step.spec.as_ref().expect("a spec").epoch;
    let result = match step.step() {
        MoveStepKind::Preflight => {
            Some(move_step_done::Result::Preflight(wire::PreflightResult::default()))
        }
        MoveStepKind::Copy => Some(move_step_done::Result::Copy(wire::CopyResult {
            rows: 200_000,
            bytes: 1 << 24,
            duration_us: 2_000_000,
        })),
        MoveStepKind::Drain => Some(move_step_done::Result::Drain(wire::DrainResult::default())),
        MoveStepKind::Verify => Some(move_step_done::Result::Verify(wire::VerifyResult::default())),
        MoveStepKind::CutOver => Some(move_step_done::Result::CutOver(wire::CutOverResult {
            epoch: epoch + 1,
            fence_us: 4900,
            ..wire::CutOverResult::default()
        })),
        MoveStepKind::RollBack => Some(move_step_done::Result::RollBack(wire::CutOverResult {
            epoch: epoch + 2,
            fence_us: 5100,
            ..wire::CutOverResult::default()
        })),
        MoveStepKind::WayBack => Some(move_step_done::Result::WayBack(wire::WayBackResult {
            keys: 7,
            verifications: 1,
            verified_at_us: 1,
        })),
        MoveStepKind::Recover => Some(recovered(wire::Serving::Target, epoch + 1, false)),
        MoveStepKind::CleanUp => {
            Some(move_step_done::Result::CleanUp(wire::CleanUpResult { rows: 200_000 }))
        }
        MoveStepKind::Guard
        | MoveStepKind::Finish
        | MoveStepKind::Undo
        | MoveStepKind::Abandon
        | MoveStepKind::Pause
        | MoveStepKind::Unspecified => None,
    };
    command_reply::Outcome::MoveStepDone(wire::MoveStepDone { step: step.step, result })
}

/// What a target's agent finds out about a switch whose source is silent.
pub(crate) fn recovered(
    serving: wire::Serving,
    epoch: u64,
    both_read: bool,
) -> move_step_done::Result {
    move_step_done::Result::Recover(wire::RecoverResult {
        serving: serving.into(),
        epoch,
        activated_at_us: 1,
        both_read,
    })
}

pub(crate) fn failed(kind: FailureKind) -> command_reply::Outcome {
    command_reply::Outcome::Failed(wire::Failed {
        kind: kind.into(),
        message: format!("scripted {kind:?}"),
        preflight: None,
    })
}
