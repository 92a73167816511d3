//! Reading a signup's statements from JSON, so that each refusal names its
//! field.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::amount::Cents;
use super::profile::{Compliance, ProfileError, ProfileOverrides};

impl ProfileOverrides {
    /// Reads the statements of a JSON object.
    ///
    /// # Errors
    /// [`ProfileError`] naming the field: an unknown one, a value of another
    /// type, a negative or fractional number, more than a cent's precision, an
    /// unknown compliance name, an empty region list, a thing said twice.
    pub fn from_json(value: &Value) -> Result<Self, ProfileError> {
        let Value::Object(fields) = value else {
            return Err(ProfileError::new("profile_overrides", format!("{value} is no object")));
        };
        let mut stated = Self::default();
        for (field, value) in fields {
            match field.as_str() {
                "performance_needs" => {
                    nested(&mut stated, field, value, "latency_requirement")?;
                }
                "usage_patterns" => {
                    nested(&mut stated, field, value, "peak_concurrent_users")?;
                }
                name => stated.set(name, field, value)?,
            }
        }
        Ok(stated)
    }

    /// Sets the field `name`, which the caller wrote as `path`.
    fn set(&mut self, name: &str, path: &str, value: &Value) -> Result<(), ProfileError> {
        if value.is_null() {
            return Ok(());
        }
        match name {
            "budget" => once(&mut self.budget, path, dollars(path, value)?),
            "vehicle_count" => once(&mut self.vehicle_count, path, whole(path, value)?),
            "compliance_requirements" => {
                let mut regimes = std::collections::BTreeSet::new();
                for name in names(path, value)? {
                    let Some(regime) = Compliance::from_name(&name) else {
                        let known = Compliance::ALL.map(Compliance::as_str).join(", ");
                        let problem = format!("{name:?} is not known; write one of {known}");
                        return Err(ProfileError::new(path, problem));
                    };
                    regimes.insert(regime);
                }
                once(&mut self.compliance_requirements, path, regimes)
            }
            "latency_requirement" => once(&mut self.latency_requirement, path, whole(path, value)?),
            "geographic_distribution" => {
                let regions = names(path, value)?;
                if regions.is_empty() {
                    let problem = "is empty; name at least one region, or leave it out";
                    return Err(ProfileError::new(path, problem));
                }
                once(&mut self.geographic_distribution, path, regions)
            }
            "peak_concurrent_users" => {
                once(&mut self.peak_concurrent_users, path, whole(path, value)?)
            }
            "gps_points_per_day" => once(&mut self.gps_points_per_day, path, whole(path, value)?),
            "gps_points_per_second" => {
                once(&mut self.gps_points_per_second, path, whole(path, value)?)
            }
            "retention_days" => once(&mut self.retention_days, path, whole(path, value)?),
            "storage_mb" => once(&mut self.storage_mb, path, whole(path, value)?),
            _ => Err(ProfileError::new(path, "is not a field of a profile")),
        }
    }
}

/// Reads the seeds' nested form: an object with one known field.
fn nested(
    stated: &mut ProfileOverrides,
    outer: &str,
    value: &Value,
    known: &str,
) -> Result<(), ProfileError> {
    let empty = Map::new();
    let fields = match value {
        Value::Null => &empty,
        Value::Object(fields) => fields,
        other => return Err(ProfileError::new(outer, format!("{other} is no object"))),
    };
    for (field, value) in fields {
        let path = format!("{outer}.{field}");
        if field != known {
            return Err(ProfileError::new(&path, "is not a field of a profile"));
        }
        stated.set(field, &path, value)?;
    }
    Ok(())
}

fn once<T>(slot: &mut Option<T>, path: &str, value: T) -> Result<(), ProfileError> {
    if slot.is_some() {
        return Err(ProfileError::new(path, "is stated twice"));
    }
    *slot = Some(value);
    Ok(())
}

fn dollars(path: &str, value: &Value) -> Result<Cents, ProfileError> {
    let Value::Number(number) = value else {
        return Err(ProfileError::new(path, format!("{value} is not a number of dollars")));
    };
    // The number's own text may have an exponent; its value's text has none.
    let text = match number.as_f64() {
        Some(value) if number.is_f64() => value.to_string(),
        _ => number.to_string(),
    };
    match Cents::from_decimal(&text) {
        Ok(amount) if amount < Cents(0) => {
            Err(ProfileError::new(path, format!("{text} is negative")))
        }
        Ok(amount) => Ok(amount),
        Err(error) => Err(ProfileError::new(path, error.to_string())),
    }
}

fn whole<T: TryFrom<u64>>(path: &str, value: &Value) -> Result<T, ProfileError> {
    let Value::Number(number) = value else {
        return Err(ProfileError::new(path, format!("{value} is not a whole number")));
    };
    if let Some(number) = number.as_u64() {
        let large = |_| ProfileError::new(path, format!("{number} is too large"));
        return T::try_from(number).map_err(large);
    }
    let negative = number.to_string().starts_with('-');
    let problem = if negative { "is negative" } else { "is not a whole number" };
    Err(ProfileError::new(path, format!("{number} {problem}")))
}

fn names(path: &str, value: &Value) -> Result<Vec<String>, ProfileError> {
    let refuse = || ProfileError::new(path, format!("{value} is not a list of names"));
    let Value::Array(items) = value else { return Err(refuse()) };
    items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(refuse)).collect()
}

impl<'de> Deserialize<'de> for ProfileOverrides {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(D::Error::custom)
    }
}
