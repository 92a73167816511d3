//! What keeps a tenant on a node that is emptied, and whether that ends by
//! itself. Pure.

use std::time::Duration;

use jiff::Timestamp;
use webhost_proto::ids::NodeId;

use crate::moves::Rules;
use crate::moves::durable::Durable;
use crate::moves::state::{State, Step, Undo};
use crate::moves::timing::later;
use crate::store::moves::{Copy, Move};

/// What keeps a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// For a person.
    pub why: String,
    /// When it ends by itself; none where a person is needed.
    pub until: Option<Timestamp>,
}

impl Keeps {
    /// What goes on until a person does something about it.
    pub fn a_person(why: impl Into<String>) -> Self {
        Self { why: why.into(), until: None }
    }
}

/// Whether that open move takes its tenant away from `node`, where it lives:
/// forwards until its books have followed the switch, or back to its source.
pub fn leaves(row: &Move, node: NodeId) -> bool {
    if row.durable.wanted.dry_run {
        return false;
    }
    match row.state {
        State::WaitingForNode => row.source == node,
        State::Step(Step::RollBack | Step::RouteBack) => row.target == Some(node),
        State::Step(step) => row.source == node && step <= Step::Route,
        _ => false,
    }
}

/// What keeps a tenant whose move found no node with room; none of every other.
pub fn by_room(row: &Move) -> Option<Keeps> {
    let waits = row.state == State::WaitingForNode && row.durable.no_room;
    waits.then(|| Keeps::a_person(row.error.clone().unwrap_or_default()))
}

/// What keeps a tenant whose open move doesn't take it away (see [`leaves`]), or
/// not before it has come to its end.
pub fn by_move(row: &Move, rules: &Rules, now: Timestamp) -> Keeps {
    let (id, durable) = (row.id, &row.durable);
    if durable.wanted.dry_run {
        let why = format!("the dry run {id} of a move of it has to end first");
        let runs = row.state != State::WaitingForNode;
        return Keeps { why, until: runs.then(|| durable.deadline.unwrap_or(now)) };
    }
    match row.state {
        State::AwaitingApproval => Keeps::a_person(format!("its move {id} awaits an approval")),
        State::AwaitingConfirmation => Keeps::a_person(format!(
            "its move {id} awaits that somebody confirms what stays behind"
        )),
        State::Paused => Keeps::a_person(format!(
            "its move {id} is paused (webhost-coordinator move resume {id})"
        )),
        State::WaitingForNode => {
            Keeps::a_person("its windows and those of its nodes are never open at once")
        }
        State::Undoing(undo @ (Undo::Source | Undo::Abandon)) => Keeps::a_person(format!(
            "its move {id} failed and is taken back ({})",
            State::Undoing(undo)
        )),
        // The way back is open, or will be at once.
        State::Step(Step::Route | Step::WayBack) => {
            let closes = way_back(durable, now);
            let until = later(closes, rules.keep_old_copy);
            let why = format!(
                "it came by move {id}, whose way back is open until {closes}; then the old copy \
                 is kept until {until} (webhost-coordinator move close-way-back {id}, then move \
                 clean-up {id} end both)"
            );
            Keeps { why, until: Some(until) }
        }
        State::Step(Step::RouteBack | Step::Finish) => {
            let until = later(now, rules.keep_old_copy);
            let why = format!(
                "its move {id} is being finished; then the old copy is kept until {until} \
                 (webhost-coordinator move clean-up {id} deletes it)"
            );
            Keeps { why, until: Some(until) }
        }
        state => Keeps { why: format!("its move {id} is in {state}"), until: Some(now) },
    }
}

fn way_back(durable: &Durable, now: Timestamp) -> Timestamp {
    let closes = durable.way_back_until;
    let closes = closes.unwrap_or(later(now, Duration::from_secs(durable.way_back_s)));
    if durable.close_way_back.is_some() { now } else { closes.max(now) }
}

/// What keeps a tenant whose move was asked for when the node was drained, and
/// has ended without it having left: nobody asks by themselves again.
pub fn by_end(row: &Move) -> Keeps {
    let why = row.error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    Keeps::a_person(format!(
        "its move {} is {}{why} (drain it again to ask once more)",
        row.id, row.state
    ))
}

/// What keeps a tenant of which other nodes hold old copies: the one that goes
/// last. None where none does.
pub fn by_copies(copies: &[Copy], now: Timestamp) -> Option<Keeps> {
    let until = |copy: &Copy| copy.until.as_deref().and_then(|text| text.parse().ok());
    let goes = |copy: &Copy| copy.kept_by.map(|_| until(copy).unwrap_or(now).max(now));
    let last = copies.iter().max_by_key(|copy| goes(copy).unwrap_or(Timestamp::MAX))?;
    let (name, until) = (&last.name, goes(last));
    let why = match (last.kept_by, until) {
        (Some(id), Some(until)) if until > now => format!(
            "{name} keeps an old copy of it until {until} (webhost-coordinator move clean-up {id} \
             deletes it)"
        ),
        (Some(id), _) => format!("move {id} deletes its old copy on {name}"),
        (None, _) => format!("{name} holds an old copy of it, and no move that would delete it"),
    };
    Some(Keeps { why, until })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use webhost_proto::ids::Epoch;
    use webhost_proto::ids::{MoveId, TenantId};

    use super::*;
    use crate::moves::durable::Wanted;
    use crate::moves::state::Ending;

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(hours)
    }

    fn row(state: State) -> Move {
        let wanted = Wanted {
            mode: "multi_tenant".into(),
            plan: "hobby".into(),
            regions: Vec::new(),
            node: None,
            dry_run: false,
        };
        Move {
            id: MoveId::generate(),
            tenant: TenantId::generate(),
            kind: "lateral".into(),
            source: NodeId::generate(),
            target: Some(NodeId::generate()),
            decision_id: None,
            reason: String::new(),
            requested_by: String::new(),
            state,
            epoch: Epoch(1),
            approved_by: None,
            approved_at: None,
            durable: Durable { way_back_until: Some(at(24)), ..Durable::new(wanted) },
            progress: Value::Null,
            result: json!({}),
            error: Some("no".into()),
            created_at: at(0),
            updated_at: at(0),
            ended_at: None,
        }
    }

    #[test]
    fn a_tenant_leaves_its_source_until_the_switch_and_its_target_only_back() {
        for state in State::all() {
            let row = row(state);
            let (from, to) = (leaves(&row, row.source), row.target.map(|to| leaves(&row, to)));
            let back = matches!(state, State::Step(Step::RollBack | Step::RouteBack));
            let forth = state == State::WaitingForNode
                || matches!(state, State::Step(step) if step <= Step::Route);
            assert_eq!((from, to), (forth, Some(back)), "{state}");
            let mut dry = row.clone();
            dry.durable.wanted.dry_run = true;
            assert!(!leaves(&dry, dry.source), "{state}");
        }
    }

    #[test]
    fn what_ends_by_itself_says_when_and_the_rest_takes_a_person() {
        let rules = Rules::default();
        let kept = |hours| later(at(hours), rules.keep_old_copy);
        for (state, until) in [
            (State::AwaitingApproval, None),
            (State::AwaitingConfirmation, None),
            (State::Paused, None),
            (State::Undoing(Undo::Source), None),
            (State::Step(Step::WayBack), Some(kept(24))),
            (State::Step(Step::Finish), Some(kept(1))),
            (State::Undoing(Undo::Tunnel), Some(at(1))),
        ] {
            let keeps = by_move(&row(state), &rules, at(1));
            assert_eq!(keeps.until, until, "{keeps:?}");
        }
        // Closed by a person, it is over at once; one past its time, too.
        let mut open = row(State::Step(Step::WayBack));
        assert_eq!(by_move(&open, &rules, at(25)).until, Some(kept(25)));
        let wish = json!({ "by": "ops", "at": at(1), "why": "" });
        open.durable.close_way_back = Some(serde_json::from_value(wish).expect("a wish"));
        assert_eq!(by_move(&open, &rules, at(1)).until, Some(kept(1)));
        let mut dry = row(State::Step(Step::Preflight));
        (dry.durable.wanted.dry_run, dry.durable.deadline) = (true, Some(at(2)));
        assert_eq!(by_move(&dry, &rules, at(1)).until, Some(at(2)));
        dry.state = State::WaitingForNode;
        assert_eq!(by_move(&dry, &rules, at(1)).until, None, "nobody knows when it begins");

        let failed = by_end(&row(State::Ended(Ending::Failed)));
        assert!(failed.until.is_none() && failed.why.contains("is failed: no"), "{failed:?}");
        let mut full = row(State::WaitingForNode);
        assert_eq!(by_room(&full), None);
        full.durable.no_room = true;
        assert_eq!(by_room(&full), Some(Keeps::a_person("no")));
    }

    #[test]
    fn the_copy_that_goes_last_counts() {
        let copy = |kept_by: Option<MoveId>, until: Option<&str>| Copy {
            node: NodeId::generate(),
            name: format!("of-{}", until.unwrap_or("none")),
            kept_by,
            state: None,
            until: until.map(str::to_owned),
        };
        let id = Some(MoveId::generate());
        let (early, late) = ("1970-01-01T05:00:00Z", "1970-01-02T00:00:00Z");
        let until = |copies: &[Copy]| by_copies(copies, at(1)).map(|keeps| keeps.until);
        assert_eq!(until(&[]), None);
        assert_eq!(until(&[copy(id, Some(late)), copy(id, Some(early))]), Some(Some(at(24))));
        assert_eq!(until(&[copy(id, None)]), Some(Some(at(1))), "it is being deleted");
        assert_eq!(until(&[copy(id, Some(late)), copy(None, None)]), Some(None), "for ever");
        let keeps = by_copies(&[copy(id, Some(early)), copy(id, Some(late))], at(1));
        assert!(keeps.expect("kept").why.starts_with("of-1970-01-02"));
    }
}
