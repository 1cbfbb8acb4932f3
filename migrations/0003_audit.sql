-- The audit log, and triggers that keep what is written once as it was written.

-- What people and the process decided, in order. `hash` covers the entry and the hash before it, so that an entry cannot
-- be altered, removed or inserted without the next one telling; the sequence remembers how many there were, so that the
-- last ones cannot be cut off unnoticed.
create table audit (
    seq integer primary key autoincrement,
    at integer not null,
    actor text not null,
    action text not null,
    subject text not null,
    detail text not null,
    previous blob not null check (length(previous) = 32),
    hash blob not null unique check (length(hash) = 32)
) strict;

-- Promises, content and intents are append-only.

create trigger audit_is_not_updated before update on audit begin select raise(abort, 'audit is append-only'); end;
create trigger audit_is_not_deleted before delete on audit begin select raise(abort, 'audit is append-only'); end;
create trigger source_file_is_not_updated before update on source_file begin select raise(abort, 'source_file is append-only'); end;
create trigger source_file_is_not_deleted before delete on source_file begin select raise(abort, 'source_file is append-only'); end;
create trigger item_is_not_updated before update on item begin select raise(abort, 'item is append-only'); end;
create trigger item_is_not_deleted before delete on item begin select raise(abort, 'item is append-only'); end;
create trigger workload_is_not_updated before update on workload begin select raise(abort, 'workload is append-only'); end;
create trigger workload_is_not_deleted before delete on workload begin select raise(abort, 'workload is append-only'); end;
create trigger accepted_is_not_updated before update on accepted begin select raise(abort, 'accepted is append-only'); end;
create trigger accepted_is_not_deleted before delete on accepted begin select raise(abort, 'accepted is append-only'); end;
create trigger decision_is_not_updated before update on decision begin select raise(abort, 'decision is append-only'); end;
create trigger decision_is_not_deleted before delete on decision begin select raise(abort, 'decision is append-only'); end;
create trigger payee_is_not_updated before update on payee begin select raise(abort, 'payee is append-only'); end;
create trigger payee_is_not_deleted before delete on payee begin select raise(abort, 'payee is append-only'); end;
create trigger closing_is_not_updated before update on closing begin select raise(abort, 'closing is append-only'); end;
create trigger closing_is_not_deleted before delete on closing begin select raise(abort, 'closing is append-only'); end;
create trigger token_is_not_updated before update on token begin select raise(abort, 'token is append-only'); end;
create trigger token_is_not_deleted before delete on token begin select raise(abort, 'token is append-only'); end;
create trigger deposit_is_not_updated before update on deposit begin select raise(abort, 'deposit is append-only'); end;
create trigger deposit_is_not_deleted before delete on deposit begin select raise(abort, 'deposit is append-only'); end;
create trigger leaf_is_not_updated before update on leaf begin select raise(abort, 'leaf is append-only'); end;
create trigger leaf_is_not_deleted before delete on leaf begin select raise(abort, 'leaf is append-only'); end;
create trigger signature_is_not_updated before update on signature begin select raise(abort, 'signature is append-only'); end;
create trigger signature_is_not_deleted before delete on signature begin select raise(abort, 'signature is append-only'); end;
create trigger slot_is_not_updated before update on slot begin select raise(abort, 'slot is append-only'); end;
create trigger slot_is_not_deleted before delete on slot begin select raise(abort, 'slot is append-only'); end;
create trigger carried_statement_is_not_updated before update on carried_statement begin select raise(abort, 'carried_statement is append-only'); end;
create trigger carried_statement_is_not_deleted before delete on carried_statement begin select raise(abort, 'carried_statement is append-only'); end;
create trigger carried_claim_is_not_updated before update on carried_claim begin select raise(abort, 'carried_claim is append-only'); end;
create trigger carried_claim_is_not_deleted before delete on carried_claim begin select raise(abort, 'carried_claim is append-only'); end;
create trigger carried_registration_is_not_updated before update on carried_registration begin select raise(abort, 'carried_registration is append-only'); end;
create trigger carried_registration_is_not_deleted before delete on carried_registration begin select raise(abort, 'carried_registration is append-only'); end;
create trigger attempt_is_not_updated before update on attempt begin select raise(abort, 'attempt is append-only'); end;
create trigger attempt_is_not_deleted before delete on attempt begin select raise(abort, 'attempt is append-only'); end;
create trigger tx_receipt_is_not_updated before update on tx_receipt begin select raise(abort, 'tx_receipt is append-only'); end;
create trigger tx_receipt_is_not_deleted before delete on tx_receipt begin select raise(abort, 'tx_receipt is append-only'); end;

-- Of a statement that was seen on chain first, the leaves may be learned later: it becomes ours, its rows get their
-- carries, and nothing else about it changes.
create trigger statement_is_not_updated before update on statement
when not (
    old.ours = 0 and new.ours = 1 and old.fee_bps is null
    and (new.id, new.deposit, new.epoch, new.spent, new.manifest, new.digest)
        is (old.id, old.deposit, old.epoch, old.spent, old.manifest, old.digest))
begin select raise(abort, 'statement is append-only'); end;
create trigger statement_is_not_deleted before delete on statement begin select raise(abort, 'statement is append-only'); end;
create trigger row_is_not_updated before update on "row"
when not (
    old.carry_in is null and old.carry_out is null
    and (new.statement, new.provider, new.units) is (old.statement, old.provider, old.units))
begin select raise(abort, 'row is append-only'); end;
create trigger row_is_not_deleted before delete on "row" begin select raise(abort, 'row is append-only'); end;

-- Facts go with their block and never alone, and not at all once they are final.

create trigger block_is_not_updated before update on block begin select raise(abort, 'a block is not changed'); end;
create trigger token_registered_is_not_updated before update on token_registered begin select raise(abort, 'a fact is not changed'); end;
create trigger token_registered_goes_with_its_block before delete on token_registered
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger funded_is_not_updated before update on funded begin select raise(abort, 'a fact is not changed'); end;
create trigger funded_goes_with_its_block before delete on funded
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger thawed_is_not_updated before update on thawed begin select raise(abort, 'a fact is not changed'); end;
create trigger thawed_goes_with_its_block before delete on thawed
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger withdrawn_is_not_updated before update on withdrawn begin select raise(abort, 'a fact is not changed'); end;
create trigger withdrawn_goes_with_its_block before delete on withdrawn
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger settled_is_not_updated before update on settled begin select raise(abort, 'a fact is not changed'); end;
create trigger settled_goes_with_its_block before delete on settled
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger skipped_is_not_updated before update on skipped begin select raise(abort, 'a fact is not changed'); end;
create trigger skipped_goes_with_its_block before delete on skipped
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger registered_is_not_updated before update on registered begin select raise(abort, 'a fact is not changed'); end;
create trigger registered_goes_with_its_block before delete on registered
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger payout_set_is_not_updated before update on payout_set begin select raise(abort, 'a fact is not changed'); end;
create trigger payout_set_goes_with_its_block before delete on payout_set
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger claimed_is_not_updated before update on claimed begin select raise(abort, 'a fact is not changed'); end;
create trigger claimed_goes_with_its_block before delete on claimed
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
create trigger claim_failed_is_not_updated before update on claim_failed begin select raise(abort, 'a fact is not changed'); end;
create trigger claim_failed_goes_with_its_block before delete on claim_failed
when exists (select 1 from block where number = old.block) or old.block <= (select finalised from chain)
begin select raise(abort, 'a fact is deleted with its block, and only above finality'); end;
