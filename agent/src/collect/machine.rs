//! Where this machine runs, as its provider's environment says: a Fly.io
//! machine knows its own id, application and region.

use webhost_proto::ids::TenantId;

use crate::status::document::Machine;

/// What the environment of this process says; `None` on other machines.
/// `tenant`: whose the machine is, by the configuration.
pub fn here(tenant: Option<TenantId>) -> Option<Machine> {
    of(|name| std::env::var(name).ok(), tenant)
}

/// As [`here`], of any environment.
pub fn of(variable: impl Fn(&str) -> Option<String>, tenant: Option<TenantId>) -> Option<Machine> {
    let id = variable("FLY_MACHINE_ID").filter(|id| !id.is_empty())?;
    // Shown to people, so nothing that could be more than a word.
    let word = |name: &str| {
        let text = variable(name).unwrap_or_default();
        text.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect()
    };
    Some(Machine {
        provider: "flyio".into(),
        id: id.chars().filter(char::is_ascii_alphanumeric).take(64).collect(),
        app: word("FLY_APP_NAME"),
        region: word("FLY_REGION"),
        tenant_id: tenant.map(|tenant| tenant.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environments_by_table() {
        let fly = |name: &str| {
            let value = match name {
                "FLY_MACHINE_ID" => "148e21b7",
                "FLY_APP_NAME" => "webhost-acme",
                "FLY_REGION" => "fra\n",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let tenant = TenantId(uuid::Uuid::from_u128(1));
        let machine = of(fly, Some(tenant)).expect("a machine of Fly.io");
        assert_eq!((machine.id.as_str(), machine.region.as_str()), ("148e21b7", "fra"));
        assert_eq!(machine.app, "webhost-acme");
        assert_eq!(machine.tenant_id, Some(tenant.to_string()));
        assert_eq!(of(|_| None, None), None);
        assert_eq!(of(|_| Some(String::new()), None), None);
    }
}
