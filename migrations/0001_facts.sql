-- Facts: what the chain says. Written by the indexer. Each fact hangs on its block, so that a reorg is one
-- deletion from `block`.

create table chain (
    one integer primary key check (one = 1),
    chain_id integer not null,
    contract blob not null check (length(contract) = 20),
    genesis blob not null check (length(genesis) = 32),
    start_block integer not null,
    -- Highest indexed block that the chain profile calls final; nothing at or below it is rolled back.
    finalised integer not null
) strict;

create table block (
    number integer primary key,
    hash blob not null unique check (length(hash) = 32),
    parent blob not null check (length(parent) = 32),
    time integer not null
) strict;

create table token_registered (
    block integer not null references block on delete cascade,
    log_index integer not null,
    token blob not null check (length(token) = 20),
    decimals integer not null,
    unit integer not null,
    primary key (block, log_index)
) strict, without rowid;

create table funded (
    block integer not null references block on delete cascade,
    log_index integer not null,
    deposit blob not null references deposit,
    sender blob not null check (length(sender) = 20),
    units blob not null check (length(units) = 8),
    primary key (block, log_index)
) strict, without rowid;
create index funded_by_deposit on funded (deposit);

-- Anybody can thaw nothing from, or retire epochs of, a deposit that was never funded and whose key is therefore unknown.
create table thawed (
    block integer not null references block on delete cascade,
    log_index integer not null,
    deposit blob not null check (length(deposit) = 32),
    units blob not null check (length(units) = 8),
    ends integer not null,
    primary key (block, log_index)
) strict, without rowid;
create index thawed_by_deposit on thawed (deposit);

create table withdrawn (
    block integer not null references block on delete cascade,
    log_index integer not null,
    deposit blob not null check (length(deposit) = 32),
    recipient blob not null check (length(recipient) = 20),
    units blob not null check (length(units) = 8),
    primary key (block, log_index)
) strict, without rowid;
create index withdrawn_by_deposit on withdrawn (deposit);

create table settled (
    block integer not null references block on delete cascade,
    log_index integer not null,
    statement integer not null references statement,
    tx_hash blob not null check (length(tx_hash) = 32),
    primary key (block, log_index)
) strict, without rowid;
create unique index settled_by_statement on settled (statement);

-- A hint that anyone can cause; kept for people, never for rules.
create table skipped (
    block integer not null references block on delete cascade,
    log_index integer not null,
    deposit blob not null check (length(deposit) = 32),
    digest blob not null check (length(digest) = 32),
    reason integer not null,
    primary key (block, log_index)
) strict, without rowid;

create table registered (
    block integer not null references block on delete cascade,
    log_index integer not null,
    provider integer not null unique,
    payout blob not null check (length(payout) = 20),
    primary key (block, log_index)
) strict, without rowid;
create index registered_by_payout on registered (payout, provider);

create table payout_set (
    block integer not null references block on delete cascade,
    log_index integer not null,
    provider integer not null,
    payout blob not null check (length(payout) = 20),
    claim_nonce integer not null,
    primary key (block, log_index)
) strict, without rowid;
create index payout_set_by_provider on payout_set (provider);

create table claimed (
    block integer not null references block on delete cascade,
    log_index integer not null,
    provider integer not null,
    token blob not null check (length(token) = 20),
    recipient blob not null check (length(recipient) = 20),
    units blob not null check (length(units) = 8),
    claim_nonce integer not null,
    primary key (block, log_index)
) strict, without rowid;
create index claimed_by_provider on claimed (provider, token);

-- A hint, like `skipped`.
create table claim_failed (
    block integer not null references block on delete cascade,
    log_index integer not null,
    provider integer not null,
    token blob not null check (length(token) = 20),
    units blob not null check (length(units) = 8),
    primary key (block, log_index)
) strict, without rowid;

-- Content: written once by whoever sees it first, never changed, never deleted. Whether it counts is told by facts.

create table token (
    address blob primary key check (length(address) = 20),
    decimals integer not null,
    unit integer not null
) strict, without rowid;

create table deposit (
    id blob primary key check (length(id) = 32),
    requestor blob not null check (length(requestor) = 20),
    signer blob not null check (length(signer) = 20),
    cosigner blob not null check (length(cosigner) = 20),
    token blob not null check (length(token) = 20),
    salt blob not null check (length(salt) = 32)
) strict, without rowid;

create table statement (
    id integer primary key,
    deposit blob not null check (length(deposit) = 32),
    epoch integer not null,
    spent blob not null check (length(spent) = 8),
    manifest blob not null check (length(manifest) = 32),
    digest blob not null unique check (length(digest) = 32),
    -- Whether this ledger proposed it. Leaves are known for our own statements only.
    ours integer not null check (ours in (0, 1)),
    -- The operator's fee when we proposed it, ten-thousandths; null for statements that are not ours.
    fee_bps integer
) strict;
-- Two candidates of one epoch with the same total would let a successor follow either of them.
create unique index statement_candidate on statement (deposit, epoch, spent) where ours = 1;
create index statement_by_deposit on statement (deposit, epoch);

create table "row" (
    statement integer not null references statement,
    provider integer not null,
    units blob not null check (length(units) = 8),
    -- Remainders below one unit, in base units; null where the leaves are not known.
    carry_in blob check (length(carry_in) = 16),
    carry_out blob check (length(carry_out) = 16),
    primary key (statement, provider)
) strict, without rowid;
create index row_by_provider on "row" (provider);
