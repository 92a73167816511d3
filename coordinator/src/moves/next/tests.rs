use proptest::prelude::*;

use super::*;

const PLAIN: Facts = Facts {
    patience: Patience::Left,
    cut_over_sent: false,
    dry_run: false,
    unconfirmed: false,
    pause: false,
    way_back: true,
    roll_back: false,
    rolled_back: false,
    abandoned: false,
    forgotten: false,
    ending: Ending::Failed,
};

#[test]
fn every_step_and_every_outcome() {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    use Patience::{Gone, Left};
    let undo_tunnel = back(Undo::Tunnel);
    let undo_source = back(Undo::Source);
    let completed = end(Ending::Completed);
    let repeat = Transition::Repeat;
    let finish = to(Step::Finish);
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
        (Step::Route, to(Step::WayBack), repeat, repeat, repeat),
        (Step::WayBack, finish, finish, repeat, finish),
        (Step::RollBack, to(Step::RouteBack), to(Step::WayBack), repeat, repeat),
        (Step::RouteBack, finish, repeat, repeat, repeat),
        (Step::Finish, to(Step::Kept), repeat, repeat, repeat),
        (Step::Kept, to(Step::CleanUp), repeat, repeat, repeat),
        (Step::CleanUp, to(Step::CloseTunnel), repeat, repeat, repeat),
        (Step::CloseTunnel, completed, completed, repeat, completed),
    ];
    assert_eq!(table.map(|row| row.0), Step::ALL);
    let next = |step, outcome, patience| next(step, outcome, &Facts { patience, ..PLAIN });
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
        // "Nothing was done" is the agent's word about who is active.
        let gone = match step {
            Step::CutOver => undo_source,
            Step::RollBack => to(Step::WayBack),
            _ => gone,
        };
        assert_eq!(next(step, Retry, Gone), gone, "{step:?} retry, late");
    }
    // A wish to stop turns even a good end around, before the cut-over.
    for (step, stopped) in [
        (Step::Preflight, undo_tunnel),
        (Step::Verify, undo_source),
        (Step::CutOver, to(Step::Route)),
        (Step::Finish, to(Step::Kept)),
    ] {
        assert_eq!(next(step, Done, Gone), stopped, "{step:?} done, to be stopped");
    }
}

#[test]
fn what_else_decides() {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    let check = |step, outcome, facts: Facts, expected| {
        assert_eq!(next(step, outcome, &facts), expected, "{step:?} {outcome:?} {facts:?}");
    };
    let dry_run = Facts { dry_run: true, ..PLAIN };
    check(Step::Preflight, Done, dry_run, back(Undo::Tunnel));
    let unconfirmed = Facts { unconfirmed: true, ..PLAIN };
    check(Step::Preflight, Done, unconfirmed, Transition::To(State::AwaitingConfirmation));
    check(Step::Preflight, Refused, unconfirmed, back(Undo::Tunnel));
    let pause = Facts { pause: true, ..PLAIN };
    check(Step::Preflight, Done, pause, Transition::Pause(Step::Guard));
    check(Step::Copy, Interrupted, pause, Transition::Pause(Step::Copy));
    check(Step::Copy, Done, pause, Transition::Pause(Step::Drain));
    check(Step::Verify, Done, pause, Transition::Pause(Step::Drain));
    // A switch is let end; where the agent says that it did not come about,
    // the move rests with the side that serves.
    check(Step::CutOver, Retry, pause, Transition::Pause(Step::Drain));
    for open in [Interrupted, Expired, MayHaveHappened] {
        check(Step::CutOver, open, pause, Transition::Repeat);
        check(Step::RollBack, open, pause, Transition::Repeat);
    }
    check(Step::CutOver, Done, pause, to(Step::Route));
    check(Step::RollBack, Retry, pause, to(Step::WayBack));
    check(Step::RollBack, Done, pause, to(Step::RouteBack));
    check(Step::Copy, Done, Facts { patience: Patience::Gone, ..pause }, back(Undo::Source));
    check(Step::Route, Done, Facts { way_back: false, ..PLAIN }, to(Step::Finish));
    let wish = Facts { roll_back: true, ..PLAIN };
    check(Step::WayBack, Interrupted, wish, to(Step::RollBack));
    check(Step::WayBack, Done, wish, to(Step::Finish));
    let rolled_back = Facts { rolled_back: true, ..PLAIN };
    check(Step::CloseTunnel, Done, rolled_back, end(Ending::RolledBack));
    let abandoned = Facts { abandoned: true, ending: Ending::Cancelled, ..PLAIN };
    check(Step::CloseTunnel, Done, abandoned, end(Ending::Cancelled));
    let forgotten = Facts { forgotten: true, ..PLAIN };
    check(Step::Finish, Done, forgotten, to(Step::CloseTunnel));
    check(Step::Finish, Refused, forgotten, Transition::Repeat);
}

#[test]
fn every_step_back_and_every_outcome() {
    use Outcome::{Done, Expired, Interrupted, MayHaveHappened, Refused, Retry};
    use Patience::{Gone, Left};
    let ended = end(Ending::Cancelled);
    let check = |undo, outcome, patience, cut_over_sent, expected| {
        let facts = Facts { patience, cut_over_sent, ending: Ending::Cancelled, ..PLAIN };
        assert_eq!(next_undo(undo, outcome, &facts), expected, "{undo:?} {outcome:?} {facts:?}");
    };
    for patience in [Left, Gone] {
        for sent in [false, true] {
            check(Undo::Source, Done, patience, sent, back(Undo::Tunnel));
            check(Undo::Abandon, Done, patience, sent, back(Undo::CleanTarget));
            check(Undo::CleanTarget, Done, patience, sent, to(Step::CloseTunnel));
            check(Undo::CleanTarget, Refused, patience, sent, Transition::Repeat);
            for outcome in [Retry, Interrupted, Expired, MayHaveHappened] {
                check(Undo::Source, outcome, Left, sent, Transition::Repeat);
                check(Undo::Source, outcome, Gone, sent, back(Undo::Abandon));
                check(Undo::Abandon, outcome, patience, sent, Transition::Repeat);
                check(Undo::CleanTarget, outcome, patience, sent, Transition::Repeat);
            }
            check(Undo::Tunnel, Done, patience, sent, ended);
            check(Undo::Tunnel, Refused, patience, sent, ended);
        }
        check(Undo::Source, Refused, patience, true, to(Step::CutOver));
        check(Undo::Source, Refused, patience, false, Transition::Repeat);
        check(Undo::Abandon, Refused, patience, true, to(Step::CutOver));
        check(Undo::Abandon, Refused, patience, false, back(Undo::Source));
    }
    for outcome in [Retry, Interrupted, Expired, MayHaveHappened] {
        check(Undo::Tunnel, outcome, Left, true, Transition::Repeat);
        check(Undo::Tunnel, outcome, Gone, true, ended);
    }
}

/// All that the facts can be.
fn all_facts() -> impl Iterator<Item = Facts> {
    (0..1_u32 << 10).map(|bits| {
        let bit = |n: u32| bits >> n & 1 == 1;
        Facts {
            patience: if bit(0) { Patience::Left } else { Patience::Gone },
            cut_over_sent: bit(1),
            dry_run: bit(2),
            unconfirmed: bit(3),
            pause: bit(4),
            way_back: bit(5),
            roll_back: bit(6),
            rolled_back: bit(7),
            abandoned: bit(8),
            forgotten: bit(9),
            ending: Ending::Failed,
        }
    })
}

#[test]
fn after_the_switch_only_a_wish_for_the_roll_back_leads_back() {
    for facts in all_facts() {
        for step in Step::ALL.into_iter().filter(|step| step.is_past_return()) {
            for outcome in Outcome::ALL {
                let after = next(step, outcome, &facts);
                let Transition::To(state) = after else {
                    assert_eq!(after, Transition::Repeat, "{step:?} {outcome:?} {facts:?}");
                    continue;
                };
                let forward = match state {
                    State::Step(Step::RollBack) => step == Step::WayBack && facts.roll_back,
                    State::Step(Step::WayBack) => step < Step::WayBack || step == Step::RollBack,
                    State::Step(to) => to > step,
                    State::Ended(_) => step == Step::CloseTunnel,
                    _ => false,
                };
                assert!(forward, "{step:?} {outcome:?} {facts:?} leads to {state}");
            }
        }
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
    undone: bool,
    facts: Facts,
}

impl Model {
    fn new() -> Self {
        Self {
            state: State::Step(Step::OpenTunnel),
            source_active: true,
            target_active: false,
            undone: false,
            facts: PLAIN,
        }
    }

    /// A switch from one side to the other runs `fate`; an agent recovers
    /// first, so one that finds the old side given up finishes the switch.
    fn switch(old: &mut bool, new: &mut bool, fate: Fate) -> Outcome {
        match fate {
            Fate::Expired => return Outcome::Expired,
            Fate::BlindRefusal => return Outcome::Refused,
            _ => {}
        }
        if !*old {
            *new = true;
        }
        match fate {
            Fate::Retry if *old => Outcome::Retry,
            Fate::Refused if *old => Outcome::Refused,
            Fate::Interrupted => Outcome::Interrupted,
            Fate::Half => {
                *old = false;
                Outcome::MayHaveHappened
            }
            _ => {
                *old = false;
                *new = true;
                if matches!(fate, Fate::DoneUnheard) {
                    Outcome::MayHaveHappened
                } else {
                    Outcome::Done
                }
            }
        }
    }

    /// An undo and an abandonment are refused by a source that is not active.
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

    fn step(&mut self, fate: Fate, patience: Patience, wish: bool) {
        let plain = match fate {
            Fate::Done => Outcome::Done,
            Fate::DoneUnheard | Fate::Half => Outcome::MayHaveHappened,
            Fate::Retry => Outcome::Retry,
            Fate::Refused | Fate::BlindRefusal => Outcome::Refused,
            Fate::Interrupted => Outcome::Interrupted,
            Fate::Expired => Outcome::Expired,
        };
        self.facts.patience = patience;
        self.facts.roll_back |= wish && self.state == State::Step(Step::WayBack);
        let transition = match self.state {
            State::Step(step) => {
                let outcome = match step {
                    Step::CutOver => {
                        self.facts.cut_over_sent = true;
                        Self::switch(&mut self.source_active, &mut self.target_active, fate)
                    }
                    Step::RollBack => {
                        Self::switch(&mut self.target_active, &mut self.source_active, fate)
                    }
                    // The coordinator's own work is done or not done.
                    Step::Route | Step::RouteBack | Step::Kept => Outcome::Done,
                    _ => plain,
                };
                next(step, outcome, &self.facts)
            }
            State::Undoing(undo) => {
                let outcome = match undo {
                    Undo::Source | Undo::Abandon => self.undo(fate),
                    Undo::CleanTarget | Undo::Tunnel => plain,
                };
                next_undo(undo, outcome, &self.facts)
            }
            _ => return,
        };
        if let Transition::To(state) = transition {
            // What the driver remembers with the change; see `apply`.
            if self.state == State::Step(Step::RouteBack) {
                self.facts.rolled_back = true;
            }
            self.facts.roll_back &= state == State::Step(Step::RollBack);
            self.facts.abandoned |= state == State::Undoing(Undo::CleanTarget);
            self.state = state;
        }
    }

    fn check(&self) {
        let (source, target) = (self.source_active, self.target_active);
        assert!(!(source && target), "two active sides: {self:?}");
        assert!(!self.undone || source, "undone after the switch: {self:?}");
        let back = self.facts.rolled_back || self.facts.abandoned;
        let right = match self.state {
            State::Step(Step::Route | Step::WayBack) => target,
            State::Step(Step::RouteBack) | State::Ended(Ending::RolledBack) => source,
            State::Step(Step::Finish | Step::Kept | Step::CleanUp | Step::CloseTunnel) => {
                if back {
                    source
                } else {
                    target
                }
            }
            State::Undoing(Undo::CleanTarget | Undo::Tunnel) => source,
            State::Ended(Ending::Completed) => target,
            State::Ended(_) => source,
            _ => true,
        };
        assert!(right, "the wrong side serves, or nobody: {self:?}");
    }

    fn run_to_the_end(&mut self) {
        for _ in 0..2 * State::all().count() {
            self.step(Fate::Done, Patience::Left, false);
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
        fates in prop::collection::vec((fates(), patience(), any::<bool>()), 0..80)
    ) {
        let mut model = Model::new();
        for (fate, patience, wish) in fates {
            let before = model.state;
            model.step(fate, patience, wish);
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
        fates in prop::collection::vec((fates(), patience(), any::<bool>()), 0..40),
        at in 0_usize..40,
    ) {
        let mut model = Model::new();
        for (round, (fate, patience, wish)) in fates.into_iter().enumerate() {
            let fate = if round >= at && model.state == State::Step(Step::CutOver) {
                Fate::BlindRefusal
            } else {
                fate
            };
            model.step(fate, patience, wish);
            model.check();
        }
        model.run_to_the_end();
    }
}
