//! Whose a control group is, by its name.

use webhost_proto::ids::TenantId;

/// What a name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tells {
    Id(TenantId),
    Slug(String),
}

/// How tenants' groups are called: text with one `{slug}` or `{id}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    before: String,
    after: String,
    by_id: bool,
}

impl Pattern {
    /// From the configuration's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (by_id, parts) = match (text.split_once("{id}"), text.split_once("{slug}")) {
            (Some(parts), None) => (true, parts),
            (None, Some(parts)) => (false, parts),
            _ => return Err(format!("{text:?} must hold {{slug}} or {{id}}, one of them")),
        };
        if text.contains('/') || parts.1.contains(['{', '}']) {
            return Err(format!("{text:?} is not the name of one control group"));
        }
        Ok(Self { before: parts.0.into(), after: parts.1.into(), by_id })
    }

    /// What `name` tells, where it fits.
    pub fn read(&self, name: &str) -> Option<Tells> {
        let middle = name.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        let middle = unescape(middle)?;
        if middle.is_empty() {
            return None;
        }
        if self.by_id { middle.parse().ok().map(Tells::Id) } else { Some(Tells::Slug(middle)) }
    }
}

/// As `systemd-escape --unescape` does: in a unit's name a hyphen stands for a
/// slash, so that a hyphen in a slice's own name is written `\x2d`. One that
/// stands as it is belongs to the name all the same: plain control groups and
/// services have no such rule.
fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if let (b'\\', [b'x', high, low, ..]) = (*first, more) {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(*high)? * 16 + digit(*low)?;
            bytes.push(u8::try_from(value).ok()?);
            rest = more.get(3..)?;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_table() {
        let id = TenantId(uuid::Uuid::from_u128(7));
        let slug = |text: &str| Some(Tells::Slug(text.into()));
        for (pattern, name, expected) in [
            ("webhost-{slug}.slice", "webhost-acme.slice", slug("acme")),
            ("webhost-{slug}.slice", r"webhost-acme\x2dinc.slice", slug("acme-inc")),
            ("webhost-{slug}.slice", "webhost-.slice", None),
            ("webhost-{slug}.slice", "system-getty.slice", None),
            ("webhost-{slug}.slice", "webhost-acme.service", None),
            ("webhost-{slug}.slice", r"webhost-a\xff.slice", None),
            ("webhost-{slug}.slice", r"webhost-a\xzz.slice", None),
            ("{slug}", "acme-inc", slug("acme-inc")),
            ("t-{id}", &format!("t-{id}"), Some(Tells::Id(id))),
            ("t-{id}", &format!("t-{}", id.to_string().replace('-', r"\x2d")), Some(Tells::Id(id))),
            ("t-{id}", "t-acme", None),
        ] {
            let pattern = Pattern::parse(pattern).expect("a pattern");
            assert_eq!(pattern.read(name), expected, "{name}");
        }
        for wrong in ["acme", "{slug}-{id}", "a/{slug}", "{slug}{slug}", ""] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
