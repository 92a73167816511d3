//! Decimal amounts as integers: money in cents, scores in hundredths, shares
//! in basis points.
//!
//! A tie at 0.70 decides differently in floating point, so the engine never
//! computes with one. Outside (JSON, TOML) the amounts are ordinary decimal
//! numbers, 29.99 or 0.85; they are read by way of their decimal text, and a
//! number with more places than the amount has is refused, not rounded.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A decimal number that is not one, or has too many places.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not a decimal number with at most {places} places")]
pub struct AmountError {
    /// What was given.
    pub text: String,
    /// How many places the amount keeps.
    pub places: u32,
}

/// Reads `text` ("-12.5") as an integer count of 10^-`places`.
fn parse(text: &str, places: u32) -> Result<i64, AmountError> {
    let refuse = || AmountError { text: text.to_owned(), places };
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) {
        return Err(refuse());
    }
    let kept = fraction.trim_end_matches('0');
    if kept.len() > places as usize {
        return Err(refuse());
    }
    let scale = 10_i64.pow(places);
    let missing = places - kept.len() as u32;
    let below = if kept.is_empty() {
        0
    } else {
        kept.parse::<i64>().map_err(|_| refuse())? * 10_i64.pow(missing)
    };
    whole
        .parse::<i64>()
        .ok()
        .and_then(|whole| whole.checked_mul(scale))
        .and_then(|whole| whole.checked_add(below))
        .map(|value| sign * value)
        .ok_or_else(refuse)
}

/// Writes `value` counts of 10^-`places` with all its places.
fn write(f: &mut fmt::Formatter<'_>, value: i64, places: u32) -> fmt::Result {
    let scale = 10_u64.pow(places);
    let sign = if value < 0 { "-" } else { "" };
    let size = value.unsigned_abs();
    write!(f, "{sign}{}.{:0width$}", size / scale, size % scale, width = places as usize)
}

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident, $places:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema,
        )]
        #[schema(value_type = f64)]
        pub struct $name(pub i64);

        impl $name {
            /// How many decimal places the amount keeps.
            pub const PLACES: u32 = $places;

            /// Reads decimal text.
            ///
            /// # Errors
            /// [`AmountError`] for anything but digits with at most
            /// [`Self::PLACES`] places.
            pub fn from_decimal(text: &str) -> Result<Self, AmountError> {
                parse(text, $places).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(f, self.0, $places)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let scale = 10_i64.pow($places);
                if self.0 % scale == 0 {
                    return serializer.serialize_i64(self.0 / scale);
                }
                // Only the way out is a float: the nearest one to the text,
                // which prints as the text again.
                let nearest = self.to_string().parse::<f64>().map_err(S::Error::custom)?;
                serializer.serialize_f64(nearest)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Decimal;
                impl Visitor<'_> for Decimal {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "a number with at most {} decimal places", $places)
                    }
                    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<$name, E> {
                        value
                            .checked_mul(10_i64.pow($places))
                            .map($name)
                            .ok_or_else(|| E::custom(format!("{value} is too large")))
                    }
                    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<$name, E> {
                        let signed = i64::try_from(value)
                            .map_err(|_| E::custom(format!("{value} is too large")))?;
                        self.visit_i64(signed)
                    }
                    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<$name, E> {
                        $name::from_decimal(&value.to_string()).map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Decimal).map_err(D::Error::custom)
            }
        }
    };
}

amount!(
    /// Money in hundredths of its currency (dollars, where nothing else is said).
    Cents, 2
);
amount!(
    /// A score, a confidence or a limit: 100 is 1.00.
    Hundredths, 2
);
amount!(
    /// A share or a rate of exchange: 10,000 is 1.0000.
    BasisPoints, 4
);

impl Cents {
    /// So many whole dollars (or euros).
    pub const fn dollars(whole: i64) -> Self {
        Self(whole * 100)
    }
}

impl Hundredths {
    /// Certainty.
    pub const ONE: Self = Self(100);
}

impl std::ops::Add for Cents {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Cents {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl std::iter::Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self(0), |a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_and_written_exactly() {
        let cases =
            [("29.99", Some(2999)), ("0.7", Some(70)), ("15", Some(1500)), ("-0.50", Some(-50))];
        for (text, want) in cases {
            assert_eq!(Cents::from_decimal(text).ok().map(|c| c.0), want, "{text}");
        }
        for text in ["", "-", ".5", "1.", "1e3", "NaN", "inf", "0.001", "92233720368547758080"] {
            assert!(Cents::from_decimal(text).is_err(), "{text}");
        }
        assert_eq!(Cents(-5).to_string(), "-0.05");
        assert_eq!(BasisPoints(10_620).to_string(), "1.0620");
    }

    #[test]
    fn json_carries_plain_numbers_both_ways() {
        for value in (-300..300).chain([2999, 1_000_001, i64::MAX / 100_000]) {
            let text = serde_json::to_string(&Cents(value)).unwrap();
            assert_eq!(serde_json::from_str::<Cents>(&text).unwrap(), Cents(value), "{text}");
        }
        assert_eq!(serde_json::to_string(&Hundredths(85)).unwrap(), "0.85");
        assert_eq!(serde_json::to_string(&Cents(4900)).unwrap(), "49");
        assert!(serde_json::from_str::<Cents>("\"12\"").is_err());
        assert!(serde_json::from_str::<Cents>("0.001").is_err());
        assert!(toml::from_str::<std::collections::BTreeMap<String, Cents>>("x = nan").is_err());
    }
}
