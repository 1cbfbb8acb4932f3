-- What proves that facts are complete, and what is remembered of endpoints.

-- The contract's journal after a block, folded from the raw logs that were indexed. Facts become final only where it equals
-- the contract's own. A block without a row has the journal of the last block below it that has one.
create table journal (
    block integer primary key references block on delete cascade,
    count integer not null,
    hash blob not null check (length(hash) = 24),
    -- The hashes of the block's entries in order, 32 bytes each, so that an untrue log can be named.
    entries blob not null check (length(entries) % 32 = 0),
    -- Operator of the endpoint that the logs came from.
    source text not null
) strict;

-- Which operators' endpoints contradicted a final block or served logs that do not verify, and which of them an operator
-- of this installation has cleared since. The last row of an operator holds.
create table endpoint_mark (
    id integer primary key,
    operator text not null,
    is_lying integer not null check (is_lying in (0, 1)),
    -- What it did, or why it is trusted again.
    reason text not null,
    -- Time of the newest block then, seconds since 1970.
    time integer not null
) strict;
create index endpoint_mark_by_operator on endpoint_mark (operator, id);

-- The last final block at which balances and credits were compared with the contract's state, and where among all of them
-- the rotating sample goes on. One row, overwritten.
create table comparison (
    one integer primary key check (one = 1),
    block integer not null,
    next_sample integer not null
) strict;

create trigger endpoint_mark_is_not_updated before update on endpoint_mark begin select raise(abort, 'endpoint_mark is append-only'); end;
create trigger endpoint_mark_is_not_deleted before delete on endpoint_mark begin select raise(abort, 'endpoint_mark is append-only'); end;
-- A journal goes with its block and only then.
create trigger journal_is_not_updated before update on journal begin select raise(abort, 'journal is append-only'); end;
