//! Whose key it is, by its beginning.

use webhost_proto::ids::TenantId;

use crate::collect::access_log::hosts::Database;

/// How tenants' keys begin: text with one `{slug}` or `{id}` in it, as
/// "customer:{id}:" or "{slug}/".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    before: String,
    /// Ends the slug or id.
    after: String,
    by_id: bool,
}

impl Prefix {
    /// From the configuration's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (by_id, (before, after)) = match (text.split_once("{id}"), text.split_once("{slug}")) {
            (Some(parts), None) => (true, parts),
            (None, Some(parts)) => (false, parts),
            _ => return Err(format!("{text:?} must hold {{slug}} or {{id}}, one of them")),
        };
        if after.is_empty() {
            return Err(format!("{text:?} must end with what ends the slug or id, as \":\""));
        }
        Ok(Self { before: before.into(), after: after.into(), by_id })
    }

    /// The tenant whose key this is.
    pub fn owner(&self, key: &[u8], database: &Database) -> Option<TenantId> {
        // What follows the owner may be any bytes.
        let rest = key.strip_prefix(self.before.as_bytes())?;
        let end = rest.windows(self.after.len()).position(|part| part == self.after.as_bytes())?;
        let name = std::str::from_utf8(&rest[..end]).ok()?;
        if self.by_id {
            return name.parse().ok();
        }
        let database = database.as_ref()?.borrow();
        let tenants = &database.value.as_ref()?.tenants;
        tenants.iter().find(|(_, tenant)| tenant.slug == name).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_by_table() {
        let id = TenantId(uuid::Uuid::from_u128(7));
        let prefix = Prefix::parse("customer:{id}:").expect("a prefix");
        for (key, expected) in [
            (format!("customer:{id}:sessions").into_bytes(), Some(id)),
            ([format!("customer:{id}:").as_bytes(), &[0xff, 0]].concat(), Some(id)),
            (format!("customer:{id}").into_bytes(), None),
            (b"customer:acme:x".to_vec(), None),
            (b"other".to_vec(), None),
            (Vec::new(), None),
        ] {
            assert_eq!(prefix.owner(&key, &None), expected, "{key:?}");
        }
        for wrong in ["customer:", "{id}", "{id}:{slug}:"] {
            assert!(Prefix::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
