//! Emptying nodes: on somebody's order, or because the others can do without
//! them.

use super::need::DIMENSIONS;
use super::plan::{Draft, Why};
use super::room::Shares;
use super::seats::Search;

/// After so many nodes in a row that could not be given up, the rest (which
/// carry more) are not tried.
const IN_VAIN: usize = 8;

/// Plans that every tenant leaves these nodes. Nothing is placed there from
/// the start, so that none moves from one of them to the next. The hardest to
/// place come first, while there is most room; who fits nowhere is reported
/// before anything moves.
pub fn drain(draft: &mut Draft, nodes: &[u32]) {
    for node in nodes {
        draft.fleet.rooms.close(*node);
    }
    let fleet = &draft.fleet;
    let mut seats: Vec<u32> = nodes.iter().flat_map(|node| fleet.on(*node)).collect();
    let size = |seat: u32| -> u64 {
        let tenant = fleet.seat(seat);
        let room = fleet.rooms.room(tenant.node);
        room.shares(&tenant.need.peaks()).into_iter().max().unwrap_or(0)
    };
    seats.sort_by_cached_key(|seat| (std::cmp::Reverse(size(*seat)), fleet.seat(*seat).id));
    for seat in seats {
        if !draft.shift(seat, Why::Drain, &Search::default()) && !draft.heading.contains_key(&seat)
        {
            draft.stuck(seat);
        }
    }
    for node in nodes {
        report_if_empty(draft, *node);
    }
}

fn report_if_empty(draft: &mut Draft, node: u32) {
    if draft.fleet.on(node).iter().all(|seat| draft.heading.contains_key(seat)) {
        let id = draft.fleet.rooms.id(node);
        draft.plan.emptied.push(id);
    }
}

/// Gives up nodes that the rest can do without, the least filled first: all
/// tenants of one, or none of it. The others stay below the low limit, nobody
/// moves who has not settled, and a plan has at most so many such moves.
pub fn consolidate(draft: &mut Draft) {
    let rooms = &draft.fleet.rooms;
    let nodes = (0..rooms.len()).map(|at| at as u32);
    let mut least: Vec<(u64, u32)> = nodes
        .filter(|node| rooms.room(*node).open && draft.fleet.count_on(*node) > 0)
        .map(|node| (rooms.room(node).tightest().1, node))
        .collect();
    least.sort_unstable();
    let mut budget = draft.fleet.policy.balance_moves as usize;
    let mut free = free_below(draft);
    let mut in_vain = 0;
    for (_, node) in least {
        let fleet = &draft.fleet;
        let room = fleet.rooms.room(node);
        let seats = fleet.on(node);
        // Strangers stay, so a node with more tenants than seats stays in use.
        let all_known = room.load.tenants as usize == seats.len();
        let movable = |seat: &u32| fleet.is_settled(*seat) && !draft.heading.contains_key(seat);
        if !all_known || draft.is_target(node) || !seats.iter().all(movable) {
            continue;
        }
        let own = free_of(draft, node);
        let fits =
            (0..DIMENSIONS).all(|d| free[d].saturating_sub(own[d]) >= u64::from(room.figures[d]));
        if seats.len() > budget || !fits || in_vain == IN_VAIN {
            return;
        }
        let mark = draft.mark();
        let avoid = [node];
        let search = Search { balance: true, avoid: &avoid };
        if seats.iter().all(|seat| draft.shift(*seat, Why::Consolidate, &search)) {
            budget -= seats.len();
            in_vain = 0;
            draft.fleet.rooms.close(node);
            report_if_empty(draft, node);
            free = free_below(draft);
        } else {
            draft.back_to(mark);
            in_vain += 1;
        }
    }
}

/// What all open nodes with tenants have free below the low limit. Hours are
/// taken at their peaks, so this is a quick look, not a promise.
fn free_below(draft: &Draft) -> Shares {
    let mut free = [0; DIMENSIONS];
    for node in (0..draft.fleet.rooms.len()).map(|at| at as u32) {
        let own = free_of(draft, node);
        for d in 0..DIMENSIONS {
            free[d] += own[d];
        }
    }
    free
}

fn free_of(draft: &Draft, node: u32) -> Shares {
    let room = draft.fleet.rooms.room(node);
    if !room.open || room.load.tenants == 0 {
        return [0; DIMENSIONS];
    }
    let calm = draft.fleet.calm(node);
    std::array::from_fn(|d| u64::from(calm[d].saturating_sub(room.figures[d])))
}
