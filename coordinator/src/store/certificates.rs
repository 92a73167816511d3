//! The certificate authorities, as rows.

use tokio_postgres::Transaction;

use super::StoreError;
use super::locks::Lock;

/// One authority: its certificate, and its private key as the caller sealed
/// it.
#[derive(Clone, Debug)]
pub struct AuthorityRow {
    /// "root", "node" or "coordinator".
    pub role: String,
    /// DER.
    pub certificate_der: Vec<u8>,
    /// Never a key in the clear.
    pub key_sealed: Vec<u8>,
}

/// Takes the lock under which authorities are made, until the transaction
/// ends: of two coordinators that start at once the second sees the first
/// one's rows.
///
/// # Errors
/// [`StoreError`].
pub async fn lock(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    transaction.execute("select pg_advisory_xact_lock($1)", &[&Lock::Authorities.key()]).await?;
    Ok(())
}

/// All authorities that there are.
///
/// # Errors
/// [`StoreError`].
pub async fn all(transaction: &Transaction<'_>) -> Result<Vec<AuthorityRow>, StoreError> {
    let rows =
        transaction.query("select role, certificate_der, key_sealed from authorities", &[]).await?;
    Ok(rows
        .into_iter()
        .map(|row| AuthorityRow {
            role: row.get(0),
            certificate_der: row.get(1),
            key_sealed: row.get(2),
        })
        .collect())
}

/// Adds an authority; never replaces one.
///
/// # Errors
/// [`StoreError`] also where the role has one already.
pub async fn insert(transaction: &Transaction<'_>, row: &AuthorityRow) -> Result<(), StoreError> {
    transaction
        .execute(
            "insert into authorities (role, certificate_der, key_sealed) values ($1, $2, $3)",
            &[&row.role, &row.certificate_der, &row.key_sealed],
        )
        .await?;
    Ok(())
}
