use serde_json::json;

use super::*;
use crate::moves::driver::world::World;

#[tokio::test]
async fn what_is_done_and_what_is_left() {
    let world = World::new().await;
    let id = world.request().await;
    let mut row = world.row(id).await;
    row.state = State::Step(Step::Copy);
    let mut check = |state, progress, done, left| {
        row.state = State::Step(state);
        row.progress = progress;
        assert_eq!(
            (percent(&row), seconds_left(&row)),
            (done, left),
            "{} {}",
            state.as_str(),
            row.progress
        );
    };
    let copy = |done: u64, total: u64, rate: u64| json!({ "step": "copy", "rows_done": done, "rows_total": total, "rows_per_second": rate });
    check(Step::Guard, json!({}), Some(0), None);
    check(Step::Copy, json!({ "step": "guard", "rows_done": 9 }), Some(0), None);
    check(Step::Copy, copy(250, 1000, 50), Some(25), Some(15));
    check(Step::Copy, copy(0, 0, 0), Some(0), None);
    // The total is an estimate.
    check(Step::Copy, copy(1100, 1000, 50), Some(100), None);
    check(Step::Verify, copy(1100, 1000, 50), Some(100), None);
    check(Step::WayBack, copy(1, 2, 1), None, None);
}
