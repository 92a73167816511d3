//! What a signup states, and the rules that it must keep. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use webhost_proto::ids::TenantId;

use crate::decide::{Catalog, ProfileError, ProfileOverrides};

/// A field that can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Which field, as the caller names it.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl Invalid {
    /// A field and what is wrong with it.
    pub fn new(field: &str, problem: impl Into<String>) -> Self {
        Self { field: field.to_owned(), problem: problem.into() }
    }
}

impl From<ProfileError> for Invalid {
    fn from(error: ProfileError) -> Self {
        let field = match error.field.as_str() {
            "plan" => error.field,
            other => format!("profile_overrides.{other}"),
        };
        Self { field, problem: error.problem }
    }
}

/// The body of a signup.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignupRequest {
    /// The caller's id of the customer; made here when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub customer_id: Option<Uuid>,
    pub name: String,
    /// 1 to 63 of a-z, 0-9 and hyphens, no hyphen at either end; unique.
    pub slug: String,
    pub email: String,
    #[serde(default)]
    pub company_name: String,
    #[serde(default)]
    pub billing_email: String,
    /// Where its users reach it, when that isn't "slug.domain"; unique.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The plan that is bought.
    #[serde(alias = "plan_slug")]
    pub plan: String,
    /// What the customer says of its needs; silent parts take their defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProfileOverrides>)]
    pub profile_overrides: Option<serde_json::Value>,
}

impl SignupRequest {
    /// Checks every field; answers the stated profile.
    ///
    /// # Errors
    /// [`Invalid`] with the first field that can't be taken.
    pub fn check(
        &self,
        reserved: &BTreeSet<String>,
        catalog: &Catalog,
    ) -> Result<ProfileOverrides, Invalid> {
        text("name", &self.name, 200)?;
        if self.name.trim().is_empty() {
            return Err(Invalid::new("name", "must not be empty"));
        }
        slug(&self.slug, reserved)?;
        email("email", &self.email)?;
        text("company_name", &self.company_name, 200)?;
        if !self.billing_email.is_empty() {
            email("billing_email", &self.billing_email)?;
        }
        if !self.host.is_empty() && !is_host(&self.host) {
            let problem = format!("{:?} is no host name in lower case", self.host);
            return Err(Invalid::new("host", problem));
        }
        plan(&self.plan, catalog)?;
        match &self.profile_overrides {
            None => Ok(ProfileOverrides::default()),
            Some(value) => overrides(value, catalog),
        }
    }

    /// The SHA-256 of the request, to know it again under its key.
    pub fn fingerprint(&self) -> Vec<u8> {
        // A struct of strings and JSON always serializes.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref().to_vec()
    }
}

/// Checks a stated profile against the catalogue.
///
/// # Errors
/// [`Invalid`] with the field.
pub fn overrides(
    value: &serde_json::Value,
    catalog: &Catalog,
) -> Result<ProfileOverrides, Invalid> {
    let stated = ProfileOverrides::from_json(value)?;
    // Building a profile checks what needs the catalogue: the regions.
    if let Some(any) = catalog.plans.first() {
        crate::decide::Profile::build(any.name.as_str(), &stated, &Default::default(), catalog)?;
    }
    Ok(stated)
}

/// Checks that the plan is in the catalogue.
///
/// # Errors
/// [`Invalid`], which lists the plans.
pub fn plan(name: &str, catalog: &Catalog) -> Result<(), Invalid> {
    if catalog.plan(name).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = catalog.plans.iter().map(|plan| plan.name.as_str()).collect();
    Err(Invalid::new("plan", format!("{name:?} is no plan; plans are {}", known.join(", "))))
}

/// Checks a slug: 1 to 63 of `[a-z0-9-]`, no hyphen at either end, not
/// reserved, and nothing that reads as an id: paths name a tenant by either.
///
/// # Errors
/// [`Invalid`], which says which rule it breaks.
pub fn slug(slug: &str, reserved: &BTreeSet<String>) -> Result<(), Invalid> {
    let problem = if slug.is_empty() {
        "must not be empty".to_owned()
    } else if slug.len() > 63 {
        format!("{slug:?} is longer than 63 characters")
    } else if let Some(other) =
        slug.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
    {
        format!("{slug:?} holds {other:?}; use a to z, 0 to 9 and hyphens")
    } else if slug.starts_with('-') || slug.ends_with('-') {
        format!("{slug:?} must not start or end with a hyphen")
    } else if reserved.contains(slug) {
        format!("{slug:?} is reserved")
    } else if slug.parse::<TenantId>().is_ok() {
        format!("{slug:?} reads as an id; use another word")
    } else {
        return Ok(());
    };
    Err(Invalid::new("slug", problem))
}

/// Whether it is a host name of at least two labels of `[a-z0-9-]`.
pub fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.contains('.') && name.split('.').all(label)
}

fn text(field: &str, value: &str, most: usize) -> Result<(), Invalid> {
    if value.chars().count() > most {
        return Err(Invalid::new(field, format!("is longer than {most} characters")));
    }
    if value.chars().any(char::is_control) {
        return Err(Invalid::new(field, "holds a control character"));
    }
    Ok(())
}

/// Checks the form of an address; whether mail arrives only mail can tell.
///
/// # Errors
/// [`Invalid`].
pub fn email(field: &str, value: &str) -> Result<(), Invalid> {
    let wrong = || Invalid::new(field, format!("{value:?} is no e-mail address"));
    if value.len() > 254 || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong());
    }
    let (local, domain) = value.rsplit_once('@').ok_or_else(wrong)?;
    let local_good = !local.is_empty()
        && local.len() <= 64
        && !local.contains('@')
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    if local_good && domain.contains('.') && domain.split('.').all(label) {
        return Ok(());
    }
    Err(wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        let reserved = BTreeSet::from(["admin".to_owned()]);
        let longest = "a".repeat(63);
        for good in ["a", "acme", "a-b-1", "0", "a--b", longest.as_str()] {
            assert_eq!(slug(good, &reserved), Ok(()), "{good}");
        }
        let long = "a".repeat(64);
        for (bad, words) in [
            ("", "empty"),
            ("-a", "hyphen"),
            ("a-", "hyphen"),
            ("-", "hyphen"),
            ("Acme", "'A'"),
            ("a_b", "'_'"),
            ("a.b", "'.'"),
            ("ä", "'ä'"),
            ("a b", "' '"),
            ("admin", "reserved"),
            (long.as_str(), "63"),
            ("01900000-0000-7000-8000-000000000001", "an id"),
            ("01900000000070008000000000000001", "an id"),
        ] {
            let error = slug(bad, &reserved).expect_err(bad);
            assert_eq!(error.field, "slug");
            assert!(error.problem.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn emails() {
        for good in ["a@b.co", "first.last+tag@sub.example.com", "o'neil@example.org"] {
            assert_eq!(email("email", good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            "a@",
            "@b.co",
            "a@b",
            "a@@b.co",
            "a b@c.de",
            "a@b..co",
            "a@-b.co",
            ".a@b.co",
            "a..b@c.de",
            "a@b.co\n",
            "a@b_c.de",
        ] {
            assert!(email("email", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_is_checked_field_by_field() {
        let good = serde_json::json!({
            "name": "Acme", "slug": "acme", "email": "a@acme.example", "plan": "hobby",
        });
        for (field, value) in [
            ("name", serde_json::json!(" ")),
            ("name", serde_json::json!("a\u{7}b")),
            ("slug", serde_json::json!("A")),
            ("email", serde_json::json!("a")),
            ("billing_email", serde_json::json!("b")),
            ("plan", serde_json::json!("gold")),
            ("host", serde_json::json!("Acme.example")),
            ("host", serde_json::json!("acme")),
            ("host", serde_json::json!("acme.example; }")),
            ("profile_overrides.budget", serde_json::json!({"budget": -1})),
            (
                "profile_overrides.geographic_distribution",
                serde_json::json!({"geographic_distribution": []}),
            ),
            (
                "profile_overrides.geographic_distribution",
                serde_json::json!({"geographic_distribution": ["moon"]}),
            ),
        ] {
            let mut body = good.clone();
            let key = field.split('.').next().expect("a key");
            body[key] = value;
            let request: SignupRequest = serde_json::from_value(body).expect("reads");
            let error = request.check(&BTreeSet::new(), &Catalog::default()).expect_err("refused");
            assert_eq!(error.field, field, "{error}");
        }
        let request: SignupRequest = serde_json::from_value(good).expect("reads");
        request.check(&BTreeSet::new(), &Catalog::default()).expect("is good");
    }
}
