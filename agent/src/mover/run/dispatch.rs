//! Which step does what, by where the tenant is served.

use crate::mover::error::{Kind, MoveError, Side};
use crate::mover::leg::Leg;
use crate::mover::recover::Standing;
use crate::mover::run::{Pair, Run};
use crate::mover::spec::{CutOver, Done, Recovered, Serving, Step};
use crate::mover::sql::{self, SCHEMA};
use crate::mover::{copy, cut_over, drain, finish, guard, undo, verify, way_back};

/// Where the tenant is served, once what was begun has been finished.
enum Settled {
    /// By the leg's first side. With what was done just now to get there.
    Before(Leg, Option<CutOver>),
    /// Not by this move any more.
    Elsewhere,
}

impl Run {
    /// One attempt at a step; `way_back` lives over those of that step.
    pub(super) async fn attempt(
        &self,
        step: Step,
        way_back: &mut way_back::State,
    ) -> Result<Done, MoveError> {
        let read = async {
            let pair = self.open().await?;
            let settled = self.settle(&pair).await?;
            Ok((pair, settled))
        };
        let (pair, settled) = read.await.map_err(|error| unread(step, error))?;
        let (leg, done) = match settled {
            Settled::Before(leg, done) => (leg, done),
            Settled::Elsewhere => return self.elsewhere(&pair, step).await,
        };
        let serving = match leg.from_side() {
            Side::Source => Serving::Source,
            Side::Target => Serving::Target,
        };
        if leg == Leg::FORTH {
            return self.before_the_switch(&pair, step).await;
        }
        match step {
            Step::Recover => {
                let switched = self.switched(&pair, leg, done).await?;
                Ok(Done::Recover(Recovered {
                    serving: Some(serving),
                    epoch: switched.epoch,
                    activated_at_us: switched.activated_at_us,
                    both_read: true,
                }))
            }
            Step::CutOver if leg.is_back() => {
                self.switched(&pair, leg, done).await.map(Done::CutOver)
            }
            Step::RollBack if !leg.is_back() => {
                self.switched(&pair, leg, done).await.map(Done::RollBack)
            }
            Step::CutOver | Step::RollBack if leg.number() <= self.tuning.last_leg => {
                let tables = self.tables(&pair).await?;
                guard::arm(self, &pair, leg, &tables).await?;
                let result = cut_over::run(self, &pair, leg).await?;
                Ok(if leg.is_back() { Done::RollBack(result) } else { Done::CutOver(result) })
            }
            Step::Verify => {
                let tables = self.tables(&pair).await?;
                guard::arm(self, &pair, leg, &tables).await?;
                verify::run(self, &pair, leg).await.map(Done::Verify)
            }
            Step::WayBack if leg.is_back() => {
                way_back::run(self, &pair, leg, way_back).await.map(Done::WayBack)
            }
            Step::Finish => finish::run(self, &pair, leg.from_side()).await.map(|()| Done::Finish),
            Step::Undo | Step::Abandon if leg.is_back() => Err(MoveError::refused(
                "the move is past its point of no return: the target serves the tenant",
            )),
            // Not refused: that would say that the source is not active.
            Step::Undo | Step::Abandon => Err(MoveError::Interrupted(
                "the move was rolled back: finish it, there is nothing to undo".into(),
            )),
            Step::CutOver | Step::WayBack => Err(MoveError::refused(format!(
                "{step}: the move was rolled back, the source serves the tenant"
            ))),
            Step::Guard | Step::Copy | Step::Drain | Step::RollBack => {
                Err(MoveError::refused(format!("{step}: the tenant was switched already")))
            }
            Step::Preflight => self.preflight().await.map(Done::Preflight),
            Step::CleanUp => Err(alone(step)),
        }
    }

    async fn before_the_switch(&self, pair: &Pair, step: Step) -> Result<Done, MoveError> {
        match step {
            Step::Recover => Ok(Done::Recover(Recovered {
                serving: Some(Serving::Source),
                epoch: self.spec.epoch,
                activated_at_us: 0,
                both_read: true,
            })),
            Step::CutOver => cut_over::run(self, pair, Leg::FORTH).await.map(Done::CutOver),
            Step::Undo => undo::run(self, pair).await.map(|()| Done::Undo),
            Step::Guard => guard::install(self, pair).await.map(Done::Guard),
            Step::Copy => copy::run(self, pair).await.map(Done::Copy),
            Step::Drain => drain::run(self, pair, Leg::FORTH).await.map(Done::Drain),
            Step::Verify => verify::run(self, pair, Leg::FORTH).await.map(Done::Verify),
            Step::Finish | Step::WayBack | Step::RollBack => {
                Err(MoveError::refused("the tenant was not switched yet: cut over or undo"))
            }
            Step::Preflight => self.preflight().await.map(Done::Preflight),
            Step::CleanUp | Step::Abandon => Err(alone(step)),
        }
    }

    /// Another move has taken the tenant over from the target: this one can
    /// only be tidied up.
    async fn elsewhere(&self, pair: &Pair, step: Step) -> Result<Done, MoveError> {
        match step {
            Step::Recover => Ok(Done::Recover(Recovered {
                serving: Some(Serving::Target),
                epoch: Leg::BACK.epoch(&self.spec),
                activated_at_us: 0,
                both_read: true,
            })),
            Step::CutOver => self.switched(pair, Leg::BACK, None).await.map(Done::CutOver),
            Step::Finish => finish::run(self, pair, Side::Target).await.map(|()| Done::Finish),
            other => Err(MoveError::refused(format!(
                "{other}: another move has taken tenant {} over from the target",
                self.spec.tenant
            ))),
        }
    }

    /// A fresh look after a cut-over whose end is not known; none when it did
    /// not happen.
    pub(super) async fn switched_after_all(&self, step: Step) -> Result<Option<Done>, MoveError> {
        let pair = self.open().await?;
        let Settled::Before(leg, done) = self.settle(&pair).await? else { return Ok(None) };
        match step {
            Step::CutOver if leg.is_back() => {
                Ok(Some(Done::CutOver(self.switched(&pair, leg, done).await?)))
            }
            Step::RollBack if !leg.is_back() && leg != Leg::FORTH => {
                Ok(Some(Done::RollBack(self.switched(&pair, leg, done).await?)))
            }
            _ => Ok(None),
        }
    }

    /// Reads how the move stands, and goes forward where a mover died past a
    /// point of no return.
    async fn settle(&self, pair: &Pair) -> Result<Settled, MoveError> {
        match self.standing(pair).await? {
            Standing::Before(leg) => Ok(Settled::Before(leg, None)),
            Standing::PastThePoint(leg) => {
                let done = cut_over::forward(self, pair, leg).await?;
                Ok(Settled::Before(leg.next(), Some(done)))
            }
            Standing::Elsewhere => Ok(Settled::Elsewhere),
            Standing::TwoActive => Err(self.two_active(pair).await),
            Standing::Stale(why) => Err(MoveError::refused(format!(
                "move {} of tenant {} at epoch {}: {why}",
                self.spec.move_id, self.spec.tenant, self.spec.epoch
            ))),
        }
    }

    /// The switch by which `leg` began: `done` just now, or by an earlier run.
    async fn switched(
        &self,
        pair: &Pair,
        leg: Leg,
        done: Option<CutOver>,
    ) -> Result<CutOver, MoveError> {
        if let Some(done) = done {
            return Ok(done);
        }
        if let Some(before) = leg.previous() {
            cut_over::publish(self, pair, before).await?;
        }
        let row = leg
            .from(pair)
            .one(
                &format!(
                    "select (extract(epoch from updated_at) * 1000000)::int8 \
                     from {SCHEMA}.fence where customer_id = {}",
                    sql::tenant_literal(self.spec.tenant)
                ),
                &[],
            )
            .await?;
        Ok(CutOver {
            epoch: leg.epoch(&self.spec),
            fence_us: 0,
            keys_in_fence: 0,
            activated_at_us: row.get(0),
            recovered: true,
        })
    }
}

/// A step that works beside one database and came here.
/// The fence rows were not read. A switch may have been begun before, and who
/// serves is not known then: nobody may take that for "the source does".
fn unread(step: Step, error: MoveError) -> MoveError {
    let switches = matches!(step, Step::CutOver | Step::RollBack);
    if switches && error.kind() == Kind::Retry {
        return MoveError::Interrupted(format!("the fence rows could not be read: {error}"));
    }
    error
}

fn alone(step: Step) -> MoveError {
    MoveError::Interrupted(format!("{step} works beside one database alone"))
}
