-- How far the comparison with the contract's state has come. All facts up to `block` are compared; of the stretch after it up to
-- `until_block`, the first `next_account` of the accounts that they touched.
alter table comparison add column until_block integer not null default 0;
alter table comparison add column next_account integer not null default 0;

-- Accounts of which the contract showed something else, until a comparison that includes all of them finds no difference. A
-- deposit, or a provider's credit in a token.
create table differing (
    id blob check (length(id) = 32),
    token blob check (length(token) = 20),
    provider integer,
    check ((id is null) = (token is not null) and (token is null) = (provider is null))
) strict;
