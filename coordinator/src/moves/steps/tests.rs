use serde_json::json;
use webhost_proto::wire::{FailureKind, MoveStepDone, MoveStepKind};

use super::*;
use crate::moves::durable::{Forgotten, Ticket, Wanted};

fn durable() -> Durable {
    let mut durable = Durable::new(Wanted {
        mode: "single_tenant".into(),
        plan: "starter".into(),
        regions: vec![],
        node: None,
        dry_run: false,
    });
    durable.ticket = Some(Ticket::generate());
    durable.ticket_expires_at = Some(Timestamp::UNIX_EPOCH);
    durable.target_tunnel = "10.0.0.2:7403".into();
    durable.target_place = "dedicated-1".into();
    durable
}

fn context(durable: &Durable) -> Context<'_> {
    Context {
        id: MoveId::generate(),
        tenant: TenantId::generate(),
        source: NodeId::generate(),
        target: NodeId::generate(),
        epoch: Epoch(4),
        durable,
        now: Timestamp::UNIX_EPOCH,
        max_rows_per_second: 7,
    }
}

fn done(step: MoveStepKind, result: Option<move_step_done::Result>) -> command_reply::Outcome {
    command_reply::Outcome::MoveStepDone(MoveStepDone { step: step.into(), result })
}

#[test]
fn the_ticket_goes_to_the_source_and_its_hash_to_the_target() {
    let durable = durable();
    let context = context(&durable);
    let ticket = durable.ticket.as_ref().expect("a ticket");
    let open = command(Step::OpenTunnel, &context).expect("a command");
    assert_eq!(open.node, context.target);
    let command::Kind::OpenTunnel(open) = open.kind else { panic!("{open:?}") };
    assert_eq!(open.ticket_sha256, ticket.sha256());
    assert_eq!(open.source_node_id, context.source.to_wire());
    for (step, kind) in [
        (Step::Preflight, MoveStepKind::Preflight),
        (Step::Guard, MoveStepKind::Guard),
        (Step::Copy, MoveStepKind::Copy),
        (Step::Drain, MoveStepKind::Drain),
        (Step::Verify, MoveStepKind::Verify),
        (Step::CutOver, MoveStepKind::CutOver),
        (Step::WayBack, MoveStepKind::WayBack),
        (Step::RollBack, MoveStepKind::RollBack),
        (Step::Finish, MoveStepKind::Finish),
        (Step::CleanUp, MoveStepKind::CleanUp),
    ] {
        let outgoing = command(step, &context).expect("a command");
        assert_eq!(outgoing.node, context.source);
        let command::Kind::MoveStep(sent) = outgoing.kind else { panic!("{step:?}") };
        assert_eq!(sent.step(), kind);
        let spec = sent.spec.expect("a spec");
        assert_eq!(spec.ticket, ticket.to_wire());
        assert_eq!((spec.epoch, spec.max_rows_per_second), (4, 7));
        assert_eq!(spec.target_tunnel, "10.0.0.2:7403");
        assert_eq!(spec.target_place, "dedicated-1");
    }
    for step in Step::ALL {
        assert_eq!(command(step, &context).is_none(), step.is_own(), "{step:?}");
    }
    for undo in [Undo::Source, Undo::Abandon] {
        assert_eq!(undo_command(undo, &context).node, context.source);
    }
    assert_eq!(undo_command(Undo::CleanTarget, &context).node, context.target);
    for close in [
        undo_command(Undo::Tunnel, &context),
        command(Step::CloseTunnel, &context).expect("a command"),
    ] {
        assert_eq!(close.node, context.target);
        assert!(matches!(close.kind, command::Kind::CloseTunnel(_)));
    }
}

#[test]
fn a_failure_reads_as_its_kind_whatever_the_step() {
    let durable = durable();
    let context = context(&durable);
    for (kind, outcome) in [
        (FailureKind::Retry, Outcome::Retry),
        (FailureKind::Refused, Outcome::Refused),
        (FailureKind::Interrupted, Outcome::Interrupted),
        (FailureKind::Expired, Outcome::MayHaveHappened),
        (FailureKind::Unspecified, Outcome::MayHaveHappened),
    ] {
        let reply = command_reply::Outcome::Failed(wire::Failed {
            kind: kind.into(),
            message: "why".into(),
            preflight: None,
        });
        let expected = Answer::of(outcome, "why");
        for step in Step::ALL {
            assert_eq!(read(step, &reply, &context), expected);
        }
        for undo in Undo::ALL {
            assert_eq!(read_undo(undo, &reply), expected);
        }
    }
}

#[test]
fn an_answer_of_another_step_concludes_nothing() {
    let durable = durable();
    let context = context(&durable);
    let guard = done(MoveStepKind::Guard, None);
    for step in Step::ALL {
        let expected = if step == Step::Guard { Outcome::Done } else { Outcome::MayHaveHappened };
        assert_eq!(read(step, &guard, &context).outcome, expected, "{step:?}");
    }
    assert_eq!(read_undo(Undo::Source, &guard).outcome, Outcome::MayHaveHappened);
    // A step that must bring figures and brings none.
    let bare = done(MoveStepKind::CutOver, None);
    assert_eq!(read(Step::CutOver, &bare, &context).outcome, Outcome::MayHaveHappened);
}

#[test]
fn a_cut_over_must_bring_a_newer_epoch() {
    let durable = durable();
    let context = context(&durable);
    let answer = |epoch| {
        let cut = wire::CutOverResult {
            epoch,
            fence_us: 4900,
            keys_in_fence: 3,
            activated_at_us: 1,
            recovered: true,
        };
        let reply = done(MoveStepKind::CutOver, Some(move_step_done::Result::CutOver(cut)));
        read(Step::CutOver, &reply, &context)
    };
    for epoch in [0, 3, 4, u64::MAX] {
        assert_eq!(answer(epoch).outcome, Outcome::MayHaveHappened, "{epoch}");
    }
    let answer = answer(5);
    assert_eq!(answer.outcome, Outcome::Done);
    let learned = answer.learned.expect("figures");
    assert_eq!(learned.epoch, Some(Epoch(5)));
    let result = learned.result.expect("a result");
    assert_eq!(result["fence_us"], json!(4900));
    assert_eq!(result["recovered"], json!(true));
}

#[test]
fn the_old_copy_is_deleted_where_nobody_lives_any_more() {
    let mut durable = durable();
    for rolled_back in [false, true] {
        durable.rolled_back = rolled_back;
        let context = context(&durable);
        let old = if rolled_back { context.target } else { context.source };
        assert_eq!(command(Step::CleanUp, &context).expect("a command").node, old);
    }
}

/// The one that serves is freed alone; nobody waits for the other.
#[test]
fn without_the_old_copys_node_the_move_is_finished_where_the_tenant_lives() {
    let mut durable = durable();
    let forgotten = Forgotten { by: "operator".into(), at: Timestamp::UNIX_EPOCH };
    for (rolled_back, gone) in [(false, false), (false, true), (true, false), (true, true)] {
        durable.rolled_back = rolled_back;
        durable.forgotten = gone.then(|| forgotten.clone());
        let context = context(&durable);
        let outgoing = command(Step::Finish, &context).expect("a command");
        let beside = if gone && !rolled_back { context.target } else { context.source };
        assert_eq!(outgoing.node, beside, "{rolled_back} {gone}");
        let command::Kind::MoveStep(step) = outgoing.kind else { panic!("another kind") };
        assert_eq!(step.spec.expect("a spec").old_copy_gone, gone);
    }
}

#[test]
fn scope_and_way_back_are_absolute_times() {
    let mut durable = durable();
    let sent = |durable: &Durable| {
        let outgoing = command(Step::CutOver, &context(durable)).expect("a command");
        let command::Kind::MoveStep(step) = outgoing.kind else { panic!("another kind") };
        let spec = step.spec.expect("a spec");
        (spec.retain_from_us, spec.way_back_until_us)
    };
    assert_eq!(sent(&durable), (0, 0));
    // Before the switch: that there will be one.
    durable.way_back_s = 60;
    assert_eq!(sent(&durable), (0, 60_000_000));
    durable.way_back_until = timestamp(7);
    durable.retain_from = timestamp(5);
    assert_eq!(sent(&durable), (5, 7));
}

#[test]
fn a_roll_back_must_bring_an_epoch_newer_than_the_targets() {
    let mut durable = durable();
    let answer = |durable: &Durable, epoch| {
        let cut = wire::CutOverResult { epoch, ..wire::CutOverResult::default() };
        let reply = done(MoveStepKind::RollBack, Some(move_step_done::Result::RollBack(cut)));
        read(Step::RollBack, &reply, &context(durable))
    };
    assert_eq!(answer(&durable, 6).outcome, Outcome::MayHaveHappened, "nothing was switched");
    durable.new_epoch = Some(Epoch(5));
    for epoch in [0, 4, 5, u64::MAX] {
        assert_eq!(answer(&durable, epoch).outcome, Outcome::MayHaveHappened, "{epoch}");
    }
    let answer = answer(&durable, 6);
    assert_eq!(answer.learned.expect("figures").back_epoch, Some(Epoch(6)));
}
