-- The book: promises and intents. Written by the relayer.

-- Promises, append-only.

create table source_file (
    id integer primary key,
    source text not null,
    -- Labels of the days that the file covers, `YYYYMMDD`, until exclusive. Money uses the records' own stamps.
    first_day text not null,
    until_day text not null,
    sha256 blob not null check (length(sha256) = 32),
    name text not null,
    at integer not null,
    unique (source, first_day, until_day, sha256)
) strict;

-- A piece of work under its natural key. Nothing here can be revised.
create table item (
    id integer primary key,
    source text not null,
    external_id text not null,
    organisation text not null,
    machine text not null,
    started_ms integer not null,
    stopped_ms integer not null,
    -- Hash over everything that a revision may not change.
    fixed blob not null check (length(fixed) = 32),
    unique (source, external_id)
) strict;
create index item_by_machine on item (machine);
create index item_by_organisation on item (organisation);

-- What was said about an item: amount, result and evidence, one row per revision.
create table workload (
    item integer not null references item,
    revision integer not null,
    -- Hash over the parsed and normalised record: same hash, same record.
    content blob not null check (length(content) = 32),
    -- The normalised record itself, JSON.
    body text not null,
    at integer not null,
    primary key (item, revision)
) strict, without rowid;

-- Work whose amount the organisation's money covers. From here on it is owed.
create table accepted (
    item integer not null,
    revision integer not null,
    amount blob not null check (length(amount) = 16),
    -- USD per whole token as a decimal, its source and its time in ms.
    -- For a record that named base units itself, the rate that it came with.
    rate text,
    rate_source text,
    rate_at integer,
    at integer not null,
    primary key (item, revision),
    foreign key (item, revision) references workload
) strict, without rowid;

-- Hold, release, dispute, pay; the last one counts.
create table decision (
    id integer primary key,
    item integer not null references item,
    verdict text not null check (verdict in ('hold', 'release', 'dispute', 'pay')),
    reason text not null,
    at integer not null
) strict;
create index decision_by_item on decision (item);

-- Organisations that may send work, each paying in one token.
create table organisation (
    name text primary key,
    token blob not null check (length(token) = 20),
    -- The key that deposits have to name, alone, to be paid from.
    attester blob not null check (length(attester) = 20)
) strict, without rowid;

-- Which deposits pay for an organisation, in order.
create table funding (
    organisation text not null references organisation,
    position integer not null,
    deposit blob not null unique check (length(deposit) = 32),
    primary key (organisation, position)
) strict, without rowid;

-- Which address a machine's earnings belong to; the last one counts.
create table payee (
    id integer primary key,
    machine text not null,
    address blob not null check (length(address) = 20),
    at integer not null
) strict;
create index payee_by_machine on payee (machine);

-- Orders to state everything payable that ended by `until_ms`, worked off one after the other.
create table closing (
    id integer primary key,
    until_ms integer not null,
    at integer not null
) strict;

-- Content of our own statements.

create table leaf (
    statement integer not null references statement,
    position integer not null,
    -- Null for a carry and for the operator's fee.
    item integer references item,
    revision integer,
    workload blob not null check (length(workload) = 32),
    provider integer not null,
    amount blob not null check (length(amount) = 16),
    primary key (statement, position)
) strict, without rowid;
create index leaf_by_item on leaf (item) where item is not null;

create table signature (
    statement integer not null references statement,
    signer blob not null check (length(signer) = 20),
    signature blob not null,
    primary key (statement, signer)
) strict, without rowid;

-- Intents. A slot is one tx nonce for one obligation, until something consumes that nonce.

create table slot (
    id integer primary key,
    sender blob not null check (length(sender) = 20),
    tx_nonce integer not null,
    kind text not null check (kind in ('settle', 'claim', 'register')),
    at integer not null,
    unique (sender, tx_nonce)
) strict;

create table carried_statement (
    slot integer not null references slot,
    statement integer not null references statement,
    primary key (slot, statement)
) strict, without rowid;
create index carried_statement_by_statement on carried_statement (statement);

create table carried_claim (
    slot integer not null references slot,
    token blob not null check (length(token) = 20),
    provider integer not null,
    primary key (slot, token, provider)
) strict, without rowid;

create table carried_registration (
    slot integer not null references slot,
    address blob not null check (length(address) = 20),
    primary key (slot, address)
) strict, without rowid;

-- Every transaction ever signed, bytes included, written before it is sent.
create table attempt (
    id integer primary key,
    slot integer not null references slot,
    hash blob not null unique check (length(hash) = 32),
    raw blob not null,
    max_fee blob not null check (length(max_fee) = 16),
    tip blob not null check (length(tip) = 16),
    gas_limit integer not null,
    at integer not null
) strict;
create index attempt_by_slot on attempt (slot);

-- What tx receipts told about attempts: hints for fee reports, never for money.
create table tx_receipt (
    attempt integer not null references attempt,
    block_hash blob not null check (length(block_hash) = 32),
    block integer not null,
    succeeded integer not null check (succeeded in (0, 1)),
    gas_used integer not null,
    fee blob not null check (length(fee) = 16),
    primary key (attempt, block_hash)
) strict, without rowid;

-- Cache: items that are not finally paid. Rebuilt from the other tables by a test.
create table open (
    item integer primary key references item
) strict;
