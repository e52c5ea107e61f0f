//! Cells of sealed columns, as a rotation of keys goes through them.

use super::*;
use crate::rows::sealed::{Reseal, SealedColumn, SealedCount, SealedRow};
use crate::types::{Moment, Uuid};
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use sotto_protocol::Timestamp;

/// The next cells after a row that are sealed with another key than this one, in order of their rows.
pub async fn page(
    connection: &mut Connection,
    column: SealedColumn,
    key_id: String,
    after: uuid::Uuid,
    most: i64,
) -> Result<Vec<SealedRow>, StoreError> {
    let text = match column {
        SealedColumn::TotpSecret => {
            "SELECT id, user_id, key_id, secret AS sealed FROM second_factors \
             WHERE id > $1 AND key_id <> $2 ORDER BY id LIMIT $3"
        }
        SealedColumn::BackupCodeHash => {
            "SELECT id, user_id, key_id, hash AS sealed FROM backup_codes \
             WHERE id > $1 AND key_id <> $2 ORDER BY id LIMIT $3"
        }
        SealedColumn::PinHash => {
            "SELECT id, user_id, key_id, hash AS sealed FROM registration_locks \
             WHERE id > $1 AND key_id <> $2 ORDER BY id LIMIT $3"
        }
    };
    let page = sql(text).bind::<Uuid, _>(after).bind::<Text, _>(key_id).bind::<BigInt, _>(most);
    Ok(page.load(connection).await?)
}

/// Puts cells in the place of others, each only if that one is still there. Returns how many.
pub async fn reseal(
    connection: &mut Connection,
    column: SealedColumn,
    cells: Vec<Reseal>,
    now: Timestamp,
) -> Result<usize, StoreError> {
    // Two cells are never alike, since a nonce is drawn for each: who finds the same one finds it unchanged.
    let text = match column {
        SealedColumn::TotpSecret => {
            "UPDATE second_factors SET secret = $2, key_id = $3, updated_at = $4 WHERE id = $1 AND secret = $5"
        }
        SealedColumn::BackupCodeHash => {
            "UPDATE backup_codes SET hash = $2, key_id = $3, updated_at = $4 WHERE id = $1 AND hash = $5"
        }
        SealedColumn::PinHash => {
            "UPDATE registration_locks SET hash = $2, key_id = $3, updated_at = $4 WHERE id = $1 AND hash = $5"
        }
    };
    transaction!(connection, |connection| {
        let mut changed = 0;
        for cell in &cells {
            changed += sql(text)
                .bind::<Uuid, _>(cell.id)
                .bind::<Binary, _>(&cell.after.sealed)
                .bind::<Text, _>(&cell.after.key_id)
                .bind::<Moment, _>(now)
                .bind::<Binary, _>(&cell.before.sealed)
                .execute(connection)
                .await?;
        }
        Ok::<_, StoreError>(changed)
    })
}

/// How many cells of a column each key has sealed.
pub async fn counts(connection: &mut Connection, column: SealedColumn) -> Result<Vec<SealedCount>, StoreError> {
    let text = match column {
        SealedColumn::TotpSecret => {
            "SELECT key_id, COUNT(*) AS cells FROM second_factors GROUP BY key_id ORDER BY key_id"
        }
        SealedColumn::BackupCodeHash => {
            "SELECT key_id, COUNT(*) AS cells FROM backup_codes GROUP BY key_id ORDER BY key_id"
        }
        SealedColumn::PinHash => {
            "SELECT key_id, COUNT(*) AS cells FROM registration_locks GROUP BY key_id ORDER BY key_id"
        }
    };
    Ok(sql(text).load(connection).await?)
}
