use proptest::prelude::*;

use super::*;

#[test]
fn every_step_and_every_outcome() {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    use Patience::{Gone, Left};
    let undo_tunnel = back(Undo::Tunnel);
    let undo_source = back(Undo::Source);
    let completed = Transition::To(State::Ended(Ending::Completed));
    let repeat = Transition::Repeat;
    // Per step: after Done; after Refused; after the rest, with patience left
    // and gone.
    let table = [
        (Step::OpenTunnel, to(Step::Preflight), undo_tunnel, repeat, undo_tunnel),
        (Step::Preflight, to(Step::Guard), undo_tunnel, repeat, undo_tunnel),
        (Step::Guard, to(Step::Copy), undo_source, repeat, undo_source),
        (Step::Copy, to(Step::Drain), undo_source, repeat, undo_source),
        (Step::Drain, to(Step::Verify), undo_source, repeat, undo_source),
        (Step::Verify, to(Step::CutOver), undo_source, repeat, undo_source),
        (Step::CutOver, to(Step::Route), undo_source, repeat, repeat),
        (Step::Route, to(Step::Finish), repeat, repeat, repeat),
        (Step::Finish, to(Step::CloseTunnel), repeat, repeat, repeat),
        (Step::CloseTunnel, completed, completed, repeat, completed),
    ];
    assert_eq!(table.map(|row| row.0), Step::ALL);
    for (step, done, refused, left, gone) in table {
        assert_eq!(next(step, Done, Left), done, "{step:?} done");
        for patience in [Left, Gone] {
            assert_eq!(next(step, Refused, patience), refused, "{step:?} refused");
        }
        for outcome in [Interrupted, Expired, MayHaveHappened] {
            assert_eq!(next(step, outcome, Left), left, "{step:?} {outcome:?}");
            assert_eq!(next(step, outcome, Gone), gone, "{step:?} {outcome:?}, late");
        }
        assert_eq!(next(step, Retry, Left), left, "{step:?} retry");
        // "Nothing was done" is the agent's word that the source is active.
        let gone = if step == Step::CutOver { undo_source } else { gone };
        assert_eq!(next(step, Retry, Gone), gone, "{step:?} retry, late");
    }
    // A wish to stop turns even a good end around, before the cut-over.
    for (step, stopped) in [
        (Step::Preflight, undo_tunnel),
        (Step::Verify, undo_source),
        (Step::CutOver, to(Step::Route)),
        (Step::Finish, to(Step::CloseTunnel)),
    ] {
        assert_eq!(next(step, Done, Gone), stopped, "{step:?} done, to be stopped");
    }
}

#[test]
fn every_step_back_and_every_outcome() {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    use Patience::{Gone, Left};
    let ended = Transition::To(State::Ended(Ending::Cancelled));
    let check = |undo, outcome, patience, sent, expected| {
        let found = next_undo(undo, outcome, patience, sent, Ending::Cancelled);
        assert_eq!(found, expected, "{undo:?} {outcome:?} {patience:?} {sent}");
    };
    for patience in [Left, Gone] {
        for sent in [false, true] {
            check(Undo::Source, Done, patience, sent, back(Undo::Tunnel));
            for outcome in [Retry, Interrupted, Expired, MayHaveHappened] {
                check(Undo::Source, outcome, patience, sent, Transition::Repeat);
            }
            check(Undo::Tunnel, Done, patience, sent, ended);
            check(Undo::Tunnel, Refused, patience, sent, ended);
        }
        check(Undo::Source, Refused, patience, true, to(Step::CutOver));
        check(Undo::Source, Refused, patience, false, Transition::Repeat);
    }
    for outcome in [Retry, Interrupted, Expired, MayHaveHappened] {
        check(Undo::Tunnel, outcome, Left, true, Transition::Repeat);
        check(Undo::Tunnel, outcome, Gone, true, ended);
    }
}

/// What becomes of one command in the model.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Done, and the answer arrives.
    Done,
    /// Done, and the answer is lost.
    DoneUnheard,
    /// A cut-over that dies between the two commits.
    Half,
    /// Nothing was done, and the agent says so.
    Retry,
    /// It can't be met, and the agent says so.
    Refused,
    /// It stopped part way.
    Interrupted,
    /// It never reached the agent.
    Expired,
    /// A refusal of somebody who did not look at the fence.
    BlindRefusal,
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Done),
        1 => Just(Fate::DoneUnheard),
        1 => Just(Fate::Half),
        1 => Just(Fate::Retry),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Interrupted),
        1 => Just(Fate::Expired),
    ]
}

/// Two databases, an agent that answers by its fence row, and the machine.
#[derive(Debug)]
struct Model {
    state: State,
    source_active: bool,
    target_active: bool,
    cut_over_sent: bool,
    undone: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            state: State::Step(Step::OpenTunnel),
            source_active: true,
            target_active: false,
            cut_over_sent: false,
            undone: false,
        }
    }

    /// A cut-over runs `fate`; an agent recovers first, so one that finds the
    /// source given up finishes the switch.
    fn cut_over(&mut self, fate: Fate) -> Outcome {
        self.cut_over_sent = true;
        match fate {
            Fate::Expired => return Outcome::Expired,
            Fate::BlindRefusal => return Outcome::Refused,
            _ => {}
        }
        if !self.source_active {
            self.target_active = true;
        }
        match fate {
            Fate::Retry if self.source_active => Outcome::Retry,
            Fate::Refused if self.source_active => Outcome::Refused,
            Fate::Interrupted => Outcome::Interrupted,
            Fate::Half => {
                self.source_active = false;
                Outcome::MayHaveHappened
            }
            _ => {
                self.source_active = false;
                self.target_active = true;
                if matches!(fate, Fate::DoneUnheard) {
                    Outcome::MayHaveHappened
                } else {
                    Outcome::Done
                }
            }
        }
    }

    fn undo(&mut self, fate: Fate) -> Outcome {
        if matches!(fate, Fate::Expired) {
            return Outcome::Expired;
        }
        if !self.source_active {
            return Outcome::Refused;
        }
        match fate {
            Fate::Done => {
                self.undone = true;
                Outcome::Done
            }
            Fate::DoneUnheard | Fate::Half => {
                self.undone = true;
                Outcome::MayHaveHappened
            }
            Fate::Retry => Outcome::Retry,
            _ => Outcome::Interrupted,
        }
    }

    fn step(&mut self, fate: Fate, patience: Patience, ending: Ending) {
        let plain = match fate {
            Fate::Done => Outcome::Done,
            Fate::DoneUnheard | Fate::Half => Outcome::MayHaveHappened,
            Fate::Retry => Outcome::Retry,
            Fate::Refused | Fate::BlindRefusal => Outcome::Refused,
            Fate::Interrupted => Outcome::Interrupted,
            Fate::Expired => Outcome::Expired,
        };
        let transition = match self.state {
            State::Step(Step::CutOver) => next(Step::CutOver, self.cut_over(fate), patience),
            State::Step(step) => next(step, plain, patience),
            State::Undoing(undo) => {
                let outcome = if undo == Undo::Source { self.undo(fate) } else { plain };
                next_undo(undo, outcome, patience, self.cut_over_sent, ending)
            }
            State::AwaitingApproval | State::WaitingForNode | State::Ended(_) => return,
        };
        if let Transition::To(state) = transition {
            self.state = state;
        }
    }

    fn check(&self) {
        assert!(!(self.source_active && self.target_active), "two active sides: {self:?}");
        assert!(!self.undone || self.source_active, "undone after the switch: {self:?}");
        match self.state {
            State::Step(step) if step.is_past_return() => {
                assert!(self.target_active, "past the return without a target: {self:?}");
            }
            State::Ended(Ending::Completed) => assert!(self.target_active, "{self:?}"),
            State::Ended(_) => {
                assert!(self.source_active && !self.target_active, "nobody serves: {self:?}");
            }
            _ => {}
        }
    }

    fn run_to_the_end(&mut self) {
        for _ in 0..2 * State::all().count() {
            self.step(Fate::Done, Patience::Left, Ending::Failed);
            self.check();
        }
        assert!(matches!(self.state, State::Ended(_)), "never ends: {self:?}");
    }
}

fn patience() -> impl Strategy<Value = Patience> {
    prop_oneof![4 => Just(Patience::Left), 1 => Just(Patience::Gone)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn one_side_serves_and_every_move_ends(
        fates in prop::collection::vec((fates(), patience()), 0..60)
    ) {
        let mut model = Model::new();
        for (fate, patience) in fates {
            let before = model.state;
            model.step(fate, patience, Ending::Failed);
            model.check();
            // Honest agents never get an undo that they have to refuse.
            if model.state == State::Undoing(Undo::Source) && before != model.state {
                prop_assert!(model.source_active, "undo sent after the switch: {model:?}");
            }
        }
        model.run_to_the_end();
    }

    /// Even a refusal that says nothing about the fence ends well: the source
    /// refuses the undo, and the move goes forward.
    #[test]
    fn a_blind_refusal_after_the_switch_costs_nothing(
        fates in prop::collection::vec((fates(), patience()), 0..40),
        at in 0_usize..40,
    ) {
        let mut model = Model::new();
        for (round, (fate, patience)) in fates.into_iter().enumerate() {
            let fate = if round >= at && model.state == State::Step(Step::CutOver) {
                Fate::BlindRefusal
            } else {
                fate
            };
            model.step(fate, patience, Ending::Failed);
            model.check();
        }
        model.run_to_the_end();
    }
}
