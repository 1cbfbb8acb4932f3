-- What brings a lost or restored database back to what was promised, and when a new payout address acts.

-- Statements that the chain or a folder of manifests knows and this ledger did not propose. Noticed once and kept; whether
-- one still freezes its deposit is a query.
create table unknown_statement (
    digest blob primary key check (length(digest) = 32),
    deposit blob not null check (length(deposit) = 32),
    epoch integer not null,
    -- Where it was seen, for people: a block or the name of a file.
    seen text not null,
    at integer not null
) strict, without rowid;
create index unknown_statement_by_deposit on unknown_statement (deposit);

-- Statements whose content came back from their manifests.
create table imported (
    statement integer primary key references statement,
    -- Checkpoint at the import. What followed it may be unknown as well, so that the deposit stays frozen until it is final.
    until_block integer not null,
    at integer not null
) strict;

-- The operator's word that what a deposit's unknown epochs paid ended before a time. Work of the organisation that ended before
-- it is regarded as paid.
create table cut_off (
    id integer primary key,
    deposit blob not null check (length(deposit) = 32),
    organisation text not null references organisation,
    -- Highest epoch that is covered; later ones freeze the deposit again.
    epoch integer not null,
    until_ms integer not null,
    reason text not null,
    at integer not null
) strict;
create index cut_off_by_deposit on cut_off (deposit);
create index cut_off_by_organisation on cut_off (organisation);

-- From when a payout address acts, by the time of blocks. A machine's first one acts at once.
alter table payee add column effective_ms integer not null default 0;

create trigger unknown_statement_is_not_updated before update on unknown_statement begin select raise(abort, 'unknown_statement is append-only'); end;
create trigger unknown_statement_is_not_deleted before delete on unknown_statement begin select raise(abort, 'unknown_statement is append-only'); end;
create trigger imported_is_not_updated before update on imported begin select raise(abort, 'imported is append-only'); end;
create trigger imported_is_not_deleted before delete on imported begin select raise(abort, 'imported is append-only'); end;
create trigger cut_off_is_not_updated before update on cut_off begin select raise(abort, 'cut_off is append-only'); end;
create trigger cut_off_is_not_deleted before delete on cut_off begin select raise(abort, 'cut_off is append-only'); end;
