-- The sender: what became of each slot, which process may send, and what the operator has taken note of.

-- What consumed the tx nonce of a slot, in a final block. Until this is known, what the slot carries is busy: nothing else,
-- neither a timeout nor an answer that is missing, sets it free.
create table outcome (
    slot integer primary key references slot,
    -- The attempt that was mined; null where it was a transaction that this ledger had not signed.
    attempt integer references attempt,
    hash blob not null check (length(hash) = 32),
    block integer not null,
    block_hash blob not null check (length(block_hash) = 32),
    succeeded integer not null check (succeeded in (0, 1))
) strict;

-- Tx nonces below `tx_nonce` are accounted for although not each of them has a slot; the highest counts.
create table adoption (
    id integer primary key,
    sender blob not null check (length(sender) = 20),
    tx_nonce integer not null,
    reason text not null,
    at integer not null
) strict;
create index adoption_by_sender on adoption (sender, tx_nonce);

-- The process that took the lease last may commit slots and attempts; one that held it before may not, whenever it wakes.
create table lease (
    one integer primary key check (one = 1),
    epoch integer not null
) strict;

-- A cancellation is a transaction to the sender itself that does nothing but consume the tx nonce.
alter table attempt add column kind text not null default 'work' check (kind in ('work', 'cancel'));

create trigger outcome_is_not_updated before update on outcome begin select raise(abort, 'outcome is append-only'); end;
create trigger outcome_is_not_deleted before delete on outcome begin select raise(abort, 'outcome is append-only'); end;
create trigger adoption_is_not_updated before update on adoption begin select raise(abort, 'adoption is append-only'); end;
create trigger adoption_is_not_deleted before delete on adoption begin select raise(abort, 'adoption is append-only'); end;
