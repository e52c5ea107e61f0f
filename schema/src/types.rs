//! SQL types with a native form on each database, and the mapping of the contract's types to them.

use crate::device_link::Stage;
use bytes::Bytes;
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::internal::derives::as_expression::Bound;
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::QueryId;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Binary, Nullable, SqlType};
use diesel::sqlite::{Sqlite, SqliteValue};
use sotto_protocol::auth::{Platform, Purpose};
use sotto_protocol::conversation::{ConversationType, Role};
use sotto_protocol::keys::Suite;
use sotto_protocol::message::Kind;
use sotto_protocol::{ConversationId, DeviceId, LinkId, MessageId, SessionId, Timestamp, UserId, VerificationId};
use std::io::Write;

/// `uuid` on PostgreSQL, 16 bytes on SQLite.
#[derive(SqlType, QueryId, Clone, Copy, Debug, Default)]
#[diesel(postgres_type(oid = 2950, array_oid = 2951))]
#[diesel(sqlite_type(name = "Binary"))]
pub struct Uuid;

/// `timestamptz` on PostgreSQL, microseconds since 1970 on SQLite.
#[derive(SqlType, QueryId, Clone, Copy, Debug, Default)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Long"))]
pub struct Moment;

/// `jsonb` on PostgreSQL, text on SQLite.
#[derive(SqlType, QueryId, Clone, Copy, Debug, Default)]
#[diesel(postgres_type(oid = 3802, array_oid = 3807))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Json;

/// `text` that holds one word of a fixed list, such as a role.
#[derive(SqlType, QueryId, Clone, Copy, Debug, Default)]
#[diesel(postgres_type(oid = 25, array_oid = 1009))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Word;

/// A value as an expression of the DSL: `devices::id.eq(bound(device_id))`. The types belong to the
/// contract's package, so diesel's own conversion cannot be implemented for them here.
pub fn bound<ST, T>(value: T) -> Bound<ST, T> {
    Bound::new(value)
}

macro_rules! uuid_columns {
    ($($rust:ty),+) => {$(
        impl ToSql<Uuid, Pg> for $rust {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(uuid::Uuid::from(*self).as_bytes())?;
                Ok(IsNull::No)
            }
        }
        impl ToSql<Uuid, Sqlite> for $rust {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                out.set_value(uuid::Uuid::from(*self).as_bytes().to_vec());
                Ok(IsNull::No)
            }
        }
        impl FromSql<Uuid, Pg> for $rust {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                Ok(uuid::Uuid::from_slice(value.as_bytes())?.into())
            }
        }
        impl FromSql<Uuid, Sqlite> for $rust {
            fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
                let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
                Ok(uuid::Uuid::from_slice(&bytes)?.into())
            }
        }
    )+};
}

uuid_columns!(uuid::Uuid, UserId, DeviceId, ConversationId, MessageId, SessionId, VerificationId, LinkId);

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's count begins.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl ToSql<Moment, Pg> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = self.as_micros().saturating_sub(POSTGRES_EPOCH);
        out.write_all(&micros.to_be_bytes())?;
        Ok(IsNull::No)
    }
}

impl ToSql<Moment, Sqlite> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.as_micros());
        Ok(IsNull::No)
    }
}

impl FromSql<Moment, Pg> for Timestamp {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let bytes: [u8; 8] = value.as_bytes().try_into()?;
        Ok(Self::from_micros(i64::from_be_bytes(bytes).saturating_add(POSTGRES_EPOCH)))
    }
}

impl FromSql<Moment, Sqlite> for Timestamp {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<diesel::sql_types::BigInt, Sqlite>>::from_sql(value)?;
        Ok(Self::from_micros(micros))
    }
}

impl ToSql<Json, Pg> for serde_json::Value {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        // The first byte is the version of jsonb's binary form.
        out.write_all(&[1])?;
        serde_json::to_writer(out, self)?;
        Ok(IsNull::No)
    }
}

impl ToSql<Json, Sqlite> for serde_json::Value {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(serde_json::to_string(self)?);
        Ok(IsNull::No)
    }
}

impl FromSql<Json, Pg> for serde_json::Value {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes().split_first() {
            Some((1, text)) => Ok(serde_json::from_slice(text)?),
            _ => Err("unknown version of jsonb".into()),
        }
    }
}

impl FromSql<Json, Sqlite> for serde_json::Value {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<diesel::sql_types::Text, Sqlite>>::from_sql(value)?;
        Ok(serde_json::from_str(&text)?)
    }
}

macro_rules! word_columns {
    ($($rust:ty => $parse:expr),+ $(,)?) => {$(
        impl ToSql<Word, Pg> for $rust {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                out.write_all(self.as_str().as_bytes())?;
                Ok(IsNull::No)
            }
        }
        impl ToSql<Word, Sqlite> for $rust {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                out.set_value(self.as_str());
                Ok(IsNull::No)
            }
        }
        impl FromSql<Word, Pg> for $rust {
            fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
                let text = std::str::from_utf8(value.as_bytes())?;
                $parse(text).ok_or_else(|| format!("unknown word {text:?}").into())
            }
        }
        impl FromSql<Word, Sqlite> for $rust {
            fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
                let text = <String as FromSql<diesel::sql_types::Text, Sqlite>>::from_sql(value)?;
                $parse(&text).ok_or_else(|| format!("unknown word {text:?}").into())
            }
        }
    )+};
}

fn parse_purpose(text: &str) -> Option<Purpose> {
    Purpose::ALL.into_iter().find(|purpose| purpose.as_str() == text)
}

word_columns!(
    Kind => Kind::parse,
    Role => Role::parse,
    ConversationType => ConversationType::parse,
    Suite => Suite::parse,
    Platform => Platform::parse,
    Purpose => parse_purpose,
    Stage => Stage::parse,
);

/// Bytes as they are handed on to many without a copy.
#[derive(Debug, FromSqlRow)]
pub(crate) struct Octets(Option<Bytes>);

impl From<Octets> for Option<Bytes> {
    fn from(octets: Octets) -> Self {
        octets.0
    }
}

impl<DB> FromSql<Nullable<Binary>, DB> for Octets
where
    DB: Backend,
    Vec<u8>: FromSql<Binary, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(Some(Vec::from_sql(bytes)?.into())))
    }

    fn from_nullable_sql(bytes: Option<DB::RawValue<'_>>) -> deserialize::Result<Self> {
        bytes.map_or(Ok(Self(None)), Self::from_sql)
    }
}
