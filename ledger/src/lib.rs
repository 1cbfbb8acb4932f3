//! Where the indexer and the relayer meet: one SQLite file, the domain's types, and every rule about money.
//!
//! ```text
//!   indexer ──facts──▶ ┌────────┐ ◀──promises, intents── relayer
//!                      │ ledger │
//!   balances, statuses ◀────────┘  (queries over those rows, never columns)
//! ```
//!
//! - *Facts* ([`chain`]): what the chain says. They hang on their block; a reorg deletes blocks, and everything derived
//!   falls back by itself.
//! - *Promises* and *intents* ([`book`]): accepted workloads, proposed statements, signed attempts. Append-only.
//! - *Rules* ([`rules`]): pure functions over what [`read`] returns. No database, clock, network or randomness in scope.
//!
//! Credits wait for finality, debits count at once: an organisation can spend `final deposits − withdrawals − thawing −
//! settled − reserved`, computed by [`rules::available`] and nowhere else.

pub mod amount;
pub mod audit;
pub mod book;
pub mod chain;
pub mod completeness;
mod error;
pub mod invariants;
pub mod manifest;
pub mod point;
pub mod proof;
pub mod read;
pub mod rules;
mod sql;
pub mod statement;
mod store;
pub mod verify;
pub mod workload;

pub use amount::{Amount, Decimal, Turnover, Unit, Units};
pub use error::{Error, Result};
pub use store::{Identity, Ledger};

/// Number under which the contract knows a provider, from 1.
pub type ProviderNumber = u32;
/// Time in milliseconds since 1970.
pub type Millis = i64;
