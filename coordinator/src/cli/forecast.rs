//! `forecast`: when the room ends.

use std::collections::HashMap;

use jiff::Timestamp;

use super::fleet::{MOST, desk};
use super::{CliError, Format, output};
use crate::config::Config;
use crate::fleet::forecast::{Reach, tightest};
use crate::store::{Store, nodes};
use crate::usage::rollup;

pub(super) async fn run(config: &Config, store: &Store, format: Format) -> Result<(), CliError> {
    let slots = desk(config, store).slots;
    let now = Timestamp::now();
    rollup::reload(store, &slots.book, now).await?;
    let client = store.client().await?;
    let found = slots.forecast(&**client, now).await?;
    if format.json {
        return output::json(&found);
    }
    let names: HashMap<_, _> = nodes::list(&**client, None, MOST)
        .await?
        .into_iter()
        .map(|node| (node.id, node.name))
        .collect();
    let days = |days: Option<u32>| days.map_or_else(|| "–".to_owned(), |days| days.to_string());
    let known = |reaches: &[Reach]| reaches.iter().any(|reach| reach.grows_milli.is_some());
    if !found.nodes.iter().any(|node| known(&node.reaches))
        && !found.places.iter().any(|place| known(&place.reaches))
    {
        output::line("growth is not known yet: it takes the same weekday of three weeks")?;
    }
    let row = |name: String, reaches: &[Reach]| match tightest(reaches) {
        None => vec![name, String::new(), String::new(), String::new(), String::new(), days(None)],
        Some(reach) => {
            let show = |value: u64| reach.dimension.show(u32::try_from(value).unwrap_or(u32::MAX));
            let grows = reach.grows_milli.and_then(|milli| u64::try_from(milli / 1000).ok());
            vec![
                name,
                reach.dimension.to_string(),
                show(reach.now),
                show(reach.limit),
                grows.map_or_else(|| "–".to_owned(), show),
                days(reach.days),
            ]
        }
    };
    let mut rows = Vec::new();
    for place in &found.places {
        let mut row = row(place.place.clone(), &place.reaches);
        row.insert(1, place.nodes.to_string());
        row.push(place.shape.clone().unwrap_or_default());
        row.push(days(place.days_with_one_more));
        rows.push(row);
    }
    let headings = [
        "PLACE",
        "NODES",
        "FULL FIRST",
        "NOW",
        "LIMIT",
        "GROWS A DAY",
        "DAYS",
        "ONE MORE NODE",
        "DAYS THEN",
    ];
    output::table(&headings, rows)?;
    let name = |id| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
    let mut rows: Vec<Vec<String>> =
        found.nodes.iter().map(|node| row(name(node.node), &node.reaches)).collect();
    rows.sort_unstable();
    output::table(&["NODE", "FULL FIRST", "NOW", "LIMIT", "GROWS A DAY", "DAYS"], rows)
}
