//! Leases: of any number of coordinators, one does a thing.
//!
//! **Invariant:** the epoch grows with every change of the holder. Work that
//! hangs on a lease names its epoch in the UPDATE that makes the work count.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::GenericClient;

use super::StoreError;
use crate::moves::timing::later;

/// A lease that was held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Which holding of it this is.
    pub epoch: i64,
}

/// Takes or extends the lease `name` for `holder`, which names one process
/// run, until `ttl` from now. None while another one holds it.
pub async fn hold(
    client: &impl GenericClient,
    name: &str,
    holder: &str,
    now: Timestamp,
    ttl: Duration,
) -> Result<Option<Lease>, StoreError> {
    let row = client
        .query_opt(
            "insert into leases (name, holder, epoch, expires_at) values ($1, $2, 1, $4)
             on conflict (name) do update set
               epoch = case when leases.holder = $2 then leases.epoch else leases.epoch + 1 end,
               holder = $2, expires_at = $4
             where leases.holder = $2 or leases.expires_at <= $3
             returning epoch",
            &[&name, &holder, &now, &later(now, ttl)],
        )
        .await?;
    row.map(|row| Ok(Lease { name: name.to_owned(), epoch: row.try_get(0)? })).transpose()
}

/// Gives the lease back, so that another one need not wait for its end.
pub async fn release(
    client: &impl GenericClient,
    name: &str,
    holder: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    client
        .execute(
            "update leases set expires_at = $3 where name = $1 and holder = $2",
            &[&name, &holder, &now],
        )
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[tokio::test]
    async fn one_holds_it_and_every_change_of_hands_is_a_new_epoch() {
        let store = testing::database().await;
        let client = store.client().await.expect("a client");
        let ttl = Duration::from_secs(30);
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).expect("a time");
        let check = async |holder: &str, seconds, expected| {
            let lease =
                hold(&**client, "evaluation", holder, at(seconds), ttl).await.expect("holds");
            assert_eq!(lease.map(|lease| lease.epoch), expected, "{holder} at {seconds}");
        };
        check("a", 0, Some(1)).await;
        check("b", 1, None).await;
        check("a", 20, Some(1)).await;
        check("b", 31, None).await;
        check("b", 50, Some(2)).await;
        check("a", 51, None).await;
        release(&**client, "evaluation", "b", at(52)).await.expect("released");
        check("a", 52, Some(3)).await;
    }
}
