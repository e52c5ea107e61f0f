//! A statement written as SQL text, prepared once per connection like the DSL's own.

use diesel::backend::{Backend, DieselReserveSpecialization};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};
use std::borrow::Cow;
use std::marker::PhantomData;

/// SQL text. Unlike `diesel::sql_query` it lets the connection cache the prepared statement, which
/// is why the text must not carry values: those are bound with [`Statement::bind`].
#[derive(Debug, Clone)]
pub struct Statement {
    text: Cow<'static, str>,
}

impl Statement {
    /// A statement with `$1`, `$2` … where values will be bound, in order.
    #[must_use]
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into() }
    }

    /// Binds the first value.
    pub fn bind<ST, V>(self, value: V) -> BoundStatement<Self, V, ST> {
        BoundStatement::new(self, value)
    }
}

impl<DB> QueryFragment<DB> for Statement
where
    DB: Backend + DieselReserveSpecialization,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(&self.text);
        Ok(())
    }
}

impl QueryId for Statement {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = Untyped;
}

impl<Conn> diesel::RunQueryDsl<Conn> for Statement {}

/// A statement with one more value bound.
#[derive(Debug, Clone)]
pub struct BoundStatement<Q, V, ST> {
    inner: Q,
    value: V,
    sql_type: PhantomData<ST>,
}

impl<Q, V, ST> BoundStatement<Q, V, ST> {
    fn new(inner: Q, value: V) -> Self {
        Self { inner, value, sql_type: PhantomData }
    }

    /// Binds the next value.
    pub fn bind<ST2, V2>(self, value: V2) -> BoundStatement<Self, V2, ST2> {
        BoundStatement::new(self, value)
    }
}

impl<Q, V, ST, DB> QueryFragment<DB> for BoundStatement<Q, V, ST>
where
    DB: Backend + HasSqlType<ST> + DieselReserveSpecialization,
    Q: QueryFragment<DB>,
    V: ToSql<ST, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.inner.walk_ast(out.reborrow())?;
        out.push_bind_param_value_only(&self.value)
    }
}

impl<Q, V, ST> QueryId for BoundStatement<Q, V, ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q, V, ST> Query for BoundStatement<Q, V, ST> {
    type SqlType = Untyped;
}

impl<Q, V, ST, Conn> diesel::RunQueryDsl<Conn> for BoundStatement<Q, V, ST> {}
