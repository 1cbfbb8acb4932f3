//! Packed rows of a statement: 10 bytes each, `uint32 provider ‖ uint48 units`, big-endian.

/// Bytes of one row.
pub const SIZE: usize = 10;

/// Highest amount of units that one row can carry, 2^48 − 1.
pub const MAX_UNITS: u64 = (1 << 48) - 1;

/// Why bytes are not well-formed rows. The contract refuses the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// The length is not a multiple of [`SIZE`].
    #[error("{0} bytes are not a whole number of 10-byte rows")]
    Length(usize),
    /// A row pays nothing, or more than [`MAX_UNITS`].
    #[error("row {0} carries {1} units, which must lie between 1 and 2^48 - 1")]
    Units(usize, u64),
    /// Providers do not strictly ascend from 1.
    #[error("row {0} names provider {1} after provider {2}; providers must strictly ascend from 1")]
    Order(usize, u32, u32),
}

/// Packs `(provider, units)` pairs, which must strictly ascend by provider.
pub fn encode(rows: &[(u32, u64)]) -> Result<Vec<u8>, RowsError> {
    let mut packed = Vec::with_capacity(rows.len().saturating_mul(SIZE));
    for &(provider, units) in rows {
        packed.extend_from_slice(&provider.to_be_bytes());
        packed.extend_from_slice(&units.to_be_bytes()[2..]);
    }
    check(rows)?;
    Ok(packed)
}

/// Unpacks well-formed rows into `(provider, units)` pairs.
pub fn decode(packed: &[u8]) -> Result<Vec<(u32, u64)>, RowsError> {
    let (chunks, rest) = packed.as_chunks::<SIZE>();
    if !rest.is_empty() {
        return Err(RowsError::Length(packed.len()));
    }
    let rows: Vec<_> = chunks
        .iter()
        .map(|&[p0, p1, p2, p3, u0, u1, u2, u3, u4, u5]| {
            let provider = u32::from_be_bytes([p0, p1, p2, p3]);
            (provider, u64::from_be_bytes([0, 0, u0, u1, u2, u3, u4, u5]))
        })
        .collect();
    check(&rows)?;
    Ok(rows)
}

fn check(rows: &[(u32, u64)]) -> Result<(), RowsError> {
    let mut last = 0;
    for (index, &(provider, units)) in rows.iter().enumerate() {
        if units == 0 || units > MAX_UNITS {
            return Err(RowsError::Units(index, units));
        }
        if provider <= last {
            return Err(RowsError::Order(index, provider, last));
        }
        last = provider;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_half_a_row() {
        assert_eq!(decode(&[0; 15]), Err(RowsError::Length(15)));
    }

    #[test]
    fn refuses_rows_that_pay_nothing_or_too_much() {
        assert_eq!(encode(&[(1, 0)]), Err(RowsError::Units(0, 0)));
        assert_eq!(encode(&[(1, 1), (2, 1 << 48)]), Err(RowsError::Units(1, 1 << 48)));
    }

    #[test]
    fn refuses_providers_that_do_not_ascend_from_one() {
        assert_eq!(encode(&[(0, 1)]), Err(RowsError::Order(0, 0, 0)));
        assert_eq!(encode(&[(2, 1), (2, 1)]), Err(RowsError::Order(1, 2, 2)));
    }

    #[test]
    fn packs_provider_and_units_big_endian() {
        let packed = encode(&[(1, 2), (0x0102_0304, MAX_UNITS)]).unwrap();
        assert_eq!(packed[..10], [0, 0, 0, 1, 0, 0, 0, 0, 0, 2]);
        assert_eq!(packed[10..], [1, 2, 3, 4, 255, 255, 255, 255, 255, 255]);
        assert_eq!(decode(&packed).unwrap(), [(1, 2), (0x0102_0304, MAX_UNITS)]);
    }
}
