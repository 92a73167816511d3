//! Windows of maintenance: when a move of a tenant, or from or to a node, may
//! begin. Pure.
//!
//! A window is some weekdays, from one time of the day to another, at a fixed
//! offset from UTC: "mon-fri 22:00-04:00 +01:00". It belongs to the day on which
//! it begins. Whoever has no window may be moved at any time; a move that has
//! begun goes on when its window closes.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MIN: i64 = 24 * 60;
const WEEK_MIN: i64 = 7 * DAY_MIN;
/// The epoch was a Thursday.
const EPOCH_WEEKDAY: i64 = 3;
/// No zone is further from UTC.
const FURTHEST_MIN: i64 = 14 * 60;

/// Some time of each week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// A bit a weekday, Monday's first; never none.
    days: u8,
    /// When it opens, in minutes of the day, below 1440.
    from: i64,
    /// How long it is open, in minutes: 1 to 1440.
    minutes: i64,
    /// East of UTC, in minutes.
    offset: i64,
}

/// What is no window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no window: {problem}; write it as \"mon-fri 22:00-04:00 +01:00\"")]
pub struct NoWindow {
    /// What was given.
    given: String,
    /// What is wrong with it.
    problem: &'static str,
}

impl Window {
    /// Minutes since the local Monday, 0 to a week.
    fn minute_of_week(self, at: Timestamp) -> i64 {
        let minutes = at.as_second().div_euclid(60) + self.offset + EPOCH_WEEKDAY * DAY_MIN;
        minutes.rem_euclid(WEEK_MIN)
    }

    /// In how many minutes it opens, for each of its days; 0 or less where it
    /// is open since so long.
    fn opens_in(self, at: Timestamp) -> impl Iterator<Item = i64> {
        let now = self.minute_of_week(at);
        (0..7).filter(move |day| self.days & (1 << day) != 0).map(move |day| {
            let until = (day * DAY_MIN + self.from - now).rem_euclid(WEEK_MIN);
            // The one before is open still.
            if until - WEEK_MIN > -self.minutes { until - WEEK_MIN } else { until }
        })
    }

    /// Whether it is open.
    pub fn is_open(self, at: Timestamp) -> bool {
        self.opens_in(at).any(|minutes| minutes <= 0)
    }

    /// When it is open next: `at` where it is, else the beginning of that minute.
    pub fn next_open(self, at: Timestamp) -> Timestamp {
        match self.opens_in(at).min() {
            Some(minutes) if minutes > 0 => {
                let minute = at.as_second().div_euclid(60) + minutes;
                Timestamp::from_second(minute * 60).unwrap_or(Timestamp::MAX)
            }
            _ => at,
        }
    }
}

/// Whether any of `windows` is open; without one, always.
pub fn is_open(windows: &[Window], at: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.is_open(at))
}

/// The first moment from `at` on at which all of several lists of windows are
/// open; none where that is never.
pub fn all_open(lists: &[&[Window]], at: Timestamp) -> Option<Timestamp> {
    let end = at.saturating_add(SignedDuration::from_mins(WEEK_MIN + 1)).ok()?;
    let mut now = at;
    while now <= end {
        let closed = lists.iter().find(|windows| !is_open(windows, now));
        let Some(windows) = closed else { return Some(now) };
        now = windows.iter().map(|window| window.next_open(now)).min()?;
    }
    None
}

fn time_of_day(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |text: &str| -> Option<i64> {
        (text.len() == 2 && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= DAY_MIN).then_some(hours * 60 + minutes)
}

fn weekdays(text: &str) -> Option<u8> {
    if text == "daily" {
        return Some(0x7f);
    }
    let day = |name: &str| DAYS.iter().position(|day| *day == name);
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // "sat-mon" goes over the end of the week.
        for step in 0..=(last + 7 - first) % 7 {
            days |= 1 << ((first + step) % 7);
        }
    }
    Some(days)
}

fn offset(text: &str) -> Option<i64> {
    if text == "utc" || text == "z" {
        return Some(0);
    }
    let sign = match text.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let minutes = time_of_day(&text[1..])?;
    (minutes <= FURTHEST_MIN).then_some(sign * minutes)
}

impl FromStr for Window {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Self, NoWindow> {
        let wrong = |problem| NoWindow { given: text.chars().take(80).collect(), problem };
        let lower = text.to_ascii_lowercase();
        let mut words = lower.split_ascii_whitespace();
        let days = words.next().and_then(weekdays);
        let days = days.ok_or_else(|| wrong("its days are \"daily\" or of mon to sun"))?;
        let times = words.next().and_then(|times| times.split_once('-'));
        let times = times.and_then(|(from, to)| Some((time_of_day(from)?, time_of_day(to)?)));
        let (from, to) = times.ok_or_else(|| wrong("its times are two of 00:00 to 24:00"))?;
        let offset = match words.next() {
            None => 0,
            Some(word) => {
                offset(word).ok_or_else(|| wrong("its zone is UTC, or an offset as +05:30"))?
            }
        };
        if words.next().is_some() {
            return Err(wrong("there is more than days, times and a zone"));
        }
        if from == to || from == DAY_MIN {
            return Err(wrong("it is never open"));
        }
        let minutes = if to > from { to - from } else { to + DAY_MIN - from };
        Ok(Self { days, from, minutes, offset })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        let names: Vec<&str> =
            (0..7).filter(|day| self.days & (1 << day) != 0).map(|day| DAYS[day]).collect();
        let days = if names.len() == 7 { "daily".to_owned() } else { names.join(",") };
        let end = self.from + self.minutes;
        let end = if end > DAY_MIN { end - DAY_MIN } else { end };
        write!(f, "{days} {}-{} ", time(self.from), time(end))?;
        match self.offset {
            0 => f.write_str("UTC"),
            east if east > 0 => write!(f, "+{}", time(east)),
            west => write!(f, "-{}", time(-west)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn window(text: &str) -> Window {
        text.parse().expect(text)
    }

    #[test]
    fn a_window_is_open_at_its_times_of_its_days() {
        // 2026-11-16 is a Monday.
        let check = |text: &str, time: &str, open: bool, next: &str| {
            let (window, time) = (window(text), at(time));
            assert_eq!(window.is_open(time), open, "{text} {time}");
            assert_eq!(window.next_open(time), at(next), "{text} {time}");
        };
        let week = "mon-fri 22:00-04:00";
        check(week, "2026-11-16T21:59:59Z", false, "2026-11-16T22:00:00Z");
        check(week, "2026-11-16T22:00:00Z", true, "2026-11-16T22:00:00Z");
        check(week, "2026-11-17T03:59:59Z", true, "2026-11-17T03:59:59Z");
        check(week, "2026-11-17T04:00:00Z", false, "2026-11-17T22:00:00Z");
        // Friday's goes on into Saturday; Sunday's would be Monday's morning.
        check(week, "2026-11-21T03:00:00Z", true, "2026-11-21T03:00:00Z");
        check(week, "2026-11-16T03:00:00Z", false, "2026-11-16T22:00:00Z");
        let east = "sun 00:30-02:00 +01:00";
        check(east, "2026-11-21T23:29:00Z", false, "2026-11-21T23:30:00Z");
        check(east, "2026-11-22T00:59:59Z", true, "2026-11-22T00:59:59Z");
        check(east, "2026-11-22T01:00:00Z", false, "2026-11-28T23:30:00Z");
        check("daily 00:00-24:00", "2026-11-22T01:00:00Z", true, "2026-11-22T01:00:00Z");
        check("sat-mon 10:00-11:00 -03:00", "2026-11-16T13:30:00Z", true, "2026-11-16T13:30:00Z");
    }

    #[test]
    fn what_is_no_window_is_refused_with_the_reason() {
        for (text, problem) in [
            ("", "days"),
            ("someday 10:00-11:00", "days"),
            ("mon,,tue 10:00-11:00", "days"),
            ("mon", "times"),
            ("mon 10-11", "times"),
            ("mon 1:00-2:00", "times"),
            ("mon 10:60-11:00", "times"),
            ("mon 10:00-24:01", "times"),
            ("mon 10:00-10:00", "never"),
            ("mon 24:00-01:00", "never"),
            ("mon 10:00-11:00 CET", "zone"),
            ("mon 10:00-11:00 +é1:00", "zone"),
            ("mon 10:00-11:00 +15:00", "zone"),
            ("mon 10:00-11:00 UTC now", "more"),
        ] {
            let error = text.parse::<Window>().expect_err(text).to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn all_must_be_open_at_once() {
        let now = at("2026-11-16T12:00:00Z");
        let (night, morning) = ([window("daily 22:00-06:00")], [window("tue 05:00-09:00")]);
        let noon = [window("daily 12:00-13:00")];
        assert_eq!(all_open(&[&night, &morning, &[]], now), Some(at("2026-11-17T05:00:00Z")));
        assert_eq!(all_open(&[&noon, &[]], now), Some(now));
        assert_eq!(all_open(&[&night, &noon], now), None, "they never meet");
        assert_eq!(all_open(&[], now), Some(now));
    }

    fn windows() -> impl Strategy<Value = Window> {
        (1_u8..128, 0_i64..DAY_MIN, 1_i64..=DAY_MIN, -FURTHEST_MIN..=FURTHEST_MIN)
            .prop_map(|(days, from, minutes, offset)| Window { days, from, minutes, offset })
    }

    proptest! {
        #[test]
        fn a_window_reads_as_it_is_written(window in windows()) {
            // 24 hours from noon on can't be written as two times.
            prop_assume!(window.minutes < DAY_MIN || window.from == 0);
            prop_assert_eq!(window.to_string().parse(), Ok(window));
        }

        /// Minute by minute, against the definition.
        #[test]
        fn it_is_open_next_at_the_first_open_minute(
            window in windows(), start in 0_i64..WEEK_MIN,
        ) {
            let moment = |minute: i64| Timestamp::from_second(29_000_000 * 60 + minute * 60).expect("a time");
            let plain = |minute: i64| {
                let local = 29_000_000 + minute + window.offset;
                (0..=1).any(|back| {
                    let day = local.div_euclid(DAY_MIN) - back;
                    let open = day * DAY_MIN + window.from;
                    window.days & (1 << (day + EPOCH_WEEKDAY).rem_euclid(7)) != 0
                        && (open..open + window.minutes).contains(&local)
                })
            };
            prop_assert_eq!(window.is_open(moment(start)), plain(start));
            let first = (start..=start + WEEK_MIN).find(|minute| plain(*minute)).expect("each week");
            prop_assert_eq!(window.next_open(moment(start)), moment(first));
        }
    }
}
