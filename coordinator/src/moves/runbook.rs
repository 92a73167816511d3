//! The runbook: one page per state, the same text in the documentation and on
//! the operator's screen.

use super::state::State;

/// What the operator reads.
pub const TEXT: &str = include_str!("RUNBOOK.md");

/// The page about `state`, without its heading; none for a word that is no
/// state.
pub fn page(state: &str) -> Option<&'static str> {
    let state: State = state.parse().ok()?;
    sections().find(|(heading, _)| *heading == state.as_str()).map(|(_, page)| page)
}

/// Heading and text of each section.
fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXT.split("\n## ").skip(1).filter_map(|section| {
        let (heading, page) = section.split_once('\n')?;
        Some((heading.trim(), page.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_its_page_and_every_page_its_state() {
        let states: Vec<&str> = State::all().map(State::as_str).collect();
        let headings: Vec<&str> = sections().map(|(heading, _)| heading).collect();
        assert_eq!(headings, states);
        for (heading, page) in sections() {
            for part in ["**What it means.**", "**The system**", "**What a person can do.**"] {
                assert!(page.contains(part), "{heading} does not say {part}");
            }
        }
        assert_eq!(page("nowhere"), None);
    }
}
