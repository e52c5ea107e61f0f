//! Single values: who is signed in, tokens, the account's keys, counters.

use super::Tx;
use super::schema::meta;
use crate::error::{Error, Result};
use diesel::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

impl Tx<'_> {
    pub(crate) fn meta(&mut self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let sealed: Option<Vec<u8>> = meta::table.find(name).select(meta::value).first(self.connection).optional()?;
        sealed.map(|sealed| self.unseal(name, &sealed)).transpose()
    }

    pub(crate) fn set_meta(&mut self, name: &str, value: &[u8]) -> Result<()> {
        let sealed = self.seal(name, value)?;
        diesel::replace_into(meta::table)
            .values((meta::name.eq(name), meta::value.eq(sealed)))
            .execute(self.connection)?;
        Ok(())
    }

    pub(crate) fn remove_meta(&mut self, name: &str) -> Result<()> {
        diesel::delete(meta::table.find(name)).execute(self.connection)?;
        Ok(())
    }

    /// A value kept as JSON.
    pub(crate) fn meta_json<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>> {
        self.meta(name)?.map(|text| serde_json::from_slice(&text).map_err(Error::store)).transpose()
    }

    /// Keeps a value as JSON.
    pub(crate) fn set_meta_json<T: Serialize>(&mut self, name: &str, value: &T) -> Result<()> {
        let text = Zeroizing::new(serde_json::to_vec(value).map_err(Error::store)?);
        self.set_meta(name, &text)
    }
}
