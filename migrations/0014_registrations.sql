-- What a token's unit is, is told by its registration, which goes with its block. `token` kept the first one ever seen, also
-- where a reorg had undone it.
drop table token;

-- The contract registers a token once. What one endpoint alone made up besides, before or after, above the final blocks, is read
-- again with all that follows.
delete from block where number > (select finalised from chain) and number >= (
    select min(first.block) from token_registered later join token_registered first on first.token = later.token
    where (first.block, first.log_index) < (later.block, later.log_index));
create unique index token_registered_once on token_registered (token);
