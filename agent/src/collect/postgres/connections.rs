//! Whose connections these are: read from the names that roles and
//! applications give, where they name a tenant.

use std::collections::BTreeMap;

use webhost_proto::ids::TenantId;

/// Backends of one role and application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) role: String,
    pub(super) application: String,
    pub(super) connections: u64,
    pub(super) active: u64,
}

/// Connections by owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// (all, active) of the tenants that a name tells.
    pub named: BTreeMap<TenantId, (u64, u64)>,
    /// (all, active) that the tenants share.
    pub shared: (u64, u64),
}

/// Sorts the groups by owner. Our own connections are nobody's use.
pub(super) fn sort(groups: &[Group], slugs: &BTreeMap<TenantId, String>) -> Connections {
    let mut connections = Connections::default();
    for group in groups {
        if group.application.starts_with("webhost-agent")
            || group.application.starts_with("webhost-mover")
        {
            continue;
        }
        let owner = owner(&group.role, slugs).or_else(|| owner(&group.application, slugs));
        let (all, active) = match owner {
            Some(tenant) => {
                let entry = connections.named.entry(tenant).or_default();
                (&mut entry.0, &mut entry.1)
            }
            None => (&mut connections.shared.0, &mut connections.shared.1),
        };
        *all += group.connections;
        *active += group.active;
    }
    connections
}

/// The one tenant that `name` speaks of: by its id anywhere in it (with or
/// without hyphens), or by its slug as the whole name or after "tenant" or
/// "customer" ("tenant_acme", "webhost/customer:acme"). A slug elsewhere
/// proves nothing: a tenant may be called "app".
fn owner(name: &str, slugs: &BTreeMap<TenantId, String>) -> Option<TenantId> {
    let name = name.to_ascii_lowercase();
    if name.is_empty() {
        return None;
    }
    let mut found = None;
    for (tenant, slug) in slugs {
        let named = contains_id(&name, *tenant) || (!slug.is_empty() && names_slug(&name, slug));
        if named && found.replace(*tenant).is_some() {
            return None;
        }
    }
    found
}

fn contains_id(name: &str, tenant: TenantId) -> bool {
    // The shortest form has 32 letters; most names are shorter.
    name.len() >= 32
        && (name.contains(&tenant.0.hyphenated().to_string())
            || name.contains(&tenant.0.simple().to_string()))
}

fn names_slug(name: &str, slug: &str) -> bool {
    let Some(before) = name.strip_suffix(slug) else { return false };
    if before.is_empty() {
        return true;
    }
    let Some(word) = before.strip_suffix(['_', ':', '/', '.', '-', ' ']) else { return false };
    ["tenant", "customer"].iter().any(|kind| {
        word.strip_suffix(kind)
            .is_some_and(|rest| !rest.ends_with(|c: char| c.is_ascii_alphanumeric()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_by_table() {
        let id = |n: u128| TenantId(uuid::Uuid::from_u128(n));
        let slugs: BTreeMap<_, _> =
            [(id(1), "acme".to_owned()), (id(2), "app".to_owned()), (id(3), String::new())].into();
        for (name, expected) in [
            ("webhost_app", None),
            ("app", Some(id(2))),
            ("tenant_acme", Some(id(1))),
            ("TENANT_ACME", Some(id(1))),
            ("webhost/customer:acme", Some(id(1))),
            ("subtenant_acme", None),
            ("acme_reader", None),
            ("", None),
            ("w-00000000-0000-0000-0000-000000000003", Some(id(3))),
            ("w_00000000000000000000000000000003", Some(id(3))),
        ] {
            assert_eq!(owner(name, &slugs), expected, "{name:?}");
        }
    }

    #[test]
    fn our_own_connections_are_nobodys_use() {
        let group = |role: &str, application: &str, connections, active| Group {
            role: role.into(),
            application: application.into(),
            connections,
            active,
        };
        let one = TenantId(uuid::Uuid::from_u128(1));
        let sorted = sort(
            &[
                group("webhost_app", "", 8, 3),
                group("tenant_acme", "", 2, 1),
                group("webhost_app", "tenant:acme", 1, 0),
                group("webhost_agent", "webhost-agent", 1, 0),
                group("webhost_agent", "webhost-mover/copy", 1, 1),
            ],
            &[(one, "acme".to_owned())].into(),
        );
        assert_eq!(sorted.named[&one], (3, 1));
        assert_eq!(sorted.shared, (8, 3));
    }
}
