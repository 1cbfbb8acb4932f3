//! How values become columns and columns values. Amounts are fixed-width big-endian blobs.

use alloy::primitives::{Address, B256};
use sqlx::{Row, sqlite::SqliteRow};

use crate::{Amount, Error, Result, Units};

pub(crate) fn amount(value: Amount) -> Vec<u8> {
    value.base_units().to_be_bytes().to_vec()
}

pub(crate) fn signed(value: i128) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

pub(crate) fn units(value: Units) -> Vec<u8> {
    value.get().to_be_bytes().to_vec()
}

/// Block numbers, nonces and the like, which stay far below 2^63.
pub(crate) fn integer(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::Overflow("integer column"))
}

/// Typed reading of columns by name; anything else than the stored form is [`Error::Corrupt`].
pub(crate) trait Columns {
    fn bytes<const N: usize>(&self, column: &'static str) -> Result<[u8; N]>;
    fn blob(&self, column: &'static str) -> Result<Vec<u8>>;
    fn int(&self, column: &'static str) -> Result<i64>;
    fn maybe_int(&self, column: &'static str) -> Result<Option<i64>>;
    fn text(&self, column: &'static str) -> Result<String>;
    fn maybe_text(&self, column: &'static str) -> Result<Option<String>>;
    fn maybe_bytes<const N: usize>(&self, column: &'static str) -> Result<Option<[u8; N]>>;

    fn u64(&self, column: &'static str) -> Result<u64> {
        u64::try_from(self.int(column)?).map_err(|_| Error::Corrupt(column))
    }
    fn u32(&self, column: &'static str) -> Result<u32> {
        u32::try_from(self.int(column)?).map_err(|_| Error::Corrupt(column))
    }
    fn flag(&self, column: &'static str) -> Result<bool> {
        Ok(self.int(column)? != 0)
    }
    fn amount(&self, column: &'static str) -> Result<Amount> {
        Ok(Amount::new(u128::from_be_bytes(self.bytes(column)?)))
    }
    fn signed(&self, column: &'static str) -> Result<i128> {
        Ok(i128::from_be_bytes(self.bytes(column)?))
    }
    fn maybe_signed(&self, column: &'static str) -> Result<Option<i128>> {
        Ok(self.maybe_bytes(column)?.map(i128::from_be_bytes))
    }
    fn units(&self, column: &'static str) -> Result<Units> {
        Ok(Units::new(u64::from_be_bytes(self.bytes(column)?)))
    }
    fn b256(&self, column: &'static str) -> Result<B256> {
        Ok(B256::new(self.bytes(column)?))
    }
    fn address(&self, column: &'static str) -> Result<Address> {
        Ok(Address::new(self.bytes(column)?))
    }
}

impl Columns for SqliteRow {
    fn bytes<const N: usize>(&self, column: &'static str) -> Result<[u8; N]> {
        self.blob(column)?.try_into().map_err(|_| Error::Corrupt(column))
    }
    fn blob(&self, column: &'static str) -> Result<Vec<u8>> {
        Ok(self.try_get(column)?)
    }
    fn int(&self, column: &'static str) -> Result<i64> {
        Ok(self.try_get(column)?)
    }
    fn maybe_int(&self, column: &'static str) -> Result<Option<i64>> {
        Ok(self.try_get(column)?)
    }
    fn text(&self, column: &'static str) -> Result<String> {
        Ok(self.try_get(column)?)
    }
    fn maybe_text(&self, column: &'static str) -> Result<Option<String>> {
        Ok(self.try_get(column)?)
    }
    fn maybe_bytes<const N: usize>(&self, column: &'static str) -> Result<Option<[u8; N]>> {
        let blob: Option<Vec<u8>> = self.try_get(column)?;
        blob.map(|blob| blob.try_into().map_err(|_| Error::Corrupt(column))).transpose()
    }
}
