//! Invariants that are queries: number, and a query that returns place and problem of each row at fault.

/// All of them, by number.
pub(super) const QUERIES: [(u32, &str); 19] = [
    (1, FACTS_HANG_ON_BLOCKS),
    (2, BLOCKS_NAME_THEIR_PARENTS),
    (3, FINALISED_IS_INDEXED),
    (4, PROVIDERS_ARE_NUMBERED),
    (5, SETTLED_ROWS_ARE_PAYABLE),
    (6, ONE_STATEMENT_SETTLES_AN_EPOCH),
    (12, CARRIES_COME_IN),
    (13, TOTALS_DIFFER),
    (15, LEAVES_NAME_AN_ITEM_ONCE),
    (16, LIVE_IN_ONE_DEPOSIT),
    (18, LEAVES_NAME_ACCEPTED_WORK),
    (20, SIGNERS_ARE_NAMED),
    (21, DEPOSITS_PAY_FOR_ONE),
    (22, WORK_IS_WHOLE),
    (24, PAYEES_CAN_BE_PAID),
    (25, SLOTS_HAVE_ATTEMPTS),
    (26, SLOTS_ARE_CONTIGUOUS),
    (28, OBLIGATIONS_ARE_CARRIED_ONCE),
    (37, ORDERS_ARE_TOLD),
];

const FACTS_HANG_ON_BLOCKS: &str = "
select fact || ' at block ' || f.block || ' log ' || log_index as place, 'its block is not stored' as problem from (
    select 'token_registered' as fact, block, log_index from token_registered
    union all select 'funded', block, log_index from funded
    union all select 'thawed', block, log_index from thawed
    union all select 'withdrawn', block, log_index from withdrawn
    union all select 'settled', block, log_index from settled
    union all select 'skipped', block, log_index from skipped
    union all select 'registered', block, log_index from registered
    union all select 'payout_set', block, log_index from payout_set
    union all select 'claimed', block, log_index from claimed
    union all select 'claim_failed', block, log_index from claim_failed) f
where not exists (select 1 from block where number = f.block)";

const BLOCKS_NAME_THEIR_PARENTS: &str = "
select 'block ' || b.number as place, 'it names another parent than the block below it' as problem
from block b join block below on below.number = b.number - 1 where b.parent <> below.hash";

const FINALISED_IS_INDEXED: &str = "
select 'chain' as place,
    'block ' || finalised || ' is called final, the checkpoint is ' || coalesce((select max(number) from block), 0) as problem
from chain where finalised > coalesce((select max(number) from block), 0)";

/// Only the first, for after it all differ.
const PROVIDERS_ARE_NUMBERED: &str = "
select 'registered, provider ' || provider as place, 'it was registered as number ' || n as problem from (
    select provider, row_number() over (order by block, log_index) as n from registered)
where provider <> n limit 1";

const SETTLED_ROWS_ARE_PAYABLE: &str = "
select 'row of statement ' || r.statement || ', provider ' || r.provider as place,
    'it is settled, with no units or for a provider that was not registered before it' as problem
from settled s join \"row\" r on r.statement = s.statement left join registered g on g.provider = r.provider
where g.provider is null or (g.block, g.log_index) > (s.block, s.log_index) or r.units = zeroblob(8)";

const ONE_STATEMENT_SETTLES_AN_EPOCH: &str = "
select 'statement ' || max(t.id) as place, 'another one settled the same epoch of its deposit' as problem
from settled s join statement t on t.id = s.statement group by t.deposit, t.epoch having count(*) > 1";

/// Of settled statements; those that could settle next are compared by arithmetic. What follows a statement is not compared
/// where it is not known what that one paid, or was not when its epoch was cut off; nor is what was brought back, of which
/// nobody knows what was known when it was stated.
const CARRIES_COME_IN: &str = "
select 'row of statement ' || statement || ', provider ' || provider as place,
    'carry in is 0x' || hex(carry_in) || ', the statement before it carried out 0x' || hex(coalesce(before, zeroblob(16)))
        as problem
from (
    select t.deposit, r.statement, r.provider, r.carry_in,
        lag(r.carry_out) over earlier as before, lag(t.epoch) over earlier as epoch_before
    from settled s join statement t on t.id = s.statement join \"row\" r on r.statement = t.id
    window earlier as (partition by t.deposit, r.provider order by t.epoch)) r
where carry_in <> coalesce(before, zeroblob(16)) and not exists (select 1 from imported m where m.statement = r.statement)
and (epoch_before is null or before is not null and not exists (
    select 1 from cut_off c where c.deposit = r.deposit and c.epoch >= epoch_before))";

const TOTALS_DIFFER: &str = "
select 'statement ' || max(id) as place, 'another candidate of its deposit and epoch has the same total' as problem
from statement where ours = 1 group by deposit, epoch, spent having count(*) > 1";

const LEAVES_NAME_AN_ITEM_ONCE: &str = "
select 'leaf of statement ' || statement || ', item ' || item as place, 'the statement names the item twice' as problem
from leaf where item is not null group by statement, item having count(*) > 1
union all
select 'statement ' || l.statement, 'it pays work of ' || min(i.organisation) || ' and of ' || max(i.organisation)
from leaf l join item i on i.id = l.item group by l.statement having min(i.organisation) <> max(i.organisation)";

/// A statement is live until a final block has settled its epoch. Of those that were brought back one may follow the other, and
/// what came of that may not be read yet.
const LIVE_IN_ONE_DEPOSIT: &str = "
select 'item ' || l.item as place, 'live statements of two deposits name it, the last is ' || max(t.id) as problem
from statement t join leaf l on l.statement = t.id
where t.ours = 1 and l.item is not null and not exists (select 1 from imported m where m.statement = t.id)
and not exists (
    select 1 from settled s join statement o on o.id = s.statement, chain
    where o.deposit = t.deposit and o.epoch = t.epoch and s.block <= chain.finalised)
group by l.item having min(t.deposit) <> max(t.deposit)";

const LEAVES_NAME_ACCEPTED_WORK: &str = "
select 'leaf of statement ' || l.statement || ', item ' || l.item as place,
    'revision ' || l.revision || ' was not accepted' as problem
from leaf l where l.item is not null
and not exists (select 1 from imported m where m.statement = l.statement)
and not exists (select 1 from accepted a where a.item = l.item and a.revision = l.revision)";

const SIGNERS_ARE_NAMED: &str = "
select 'signature of statement ' || g.statement || ' by 0x' || lower(hex(g.signer)) as place,
    'it is of no statement of ours, or by a key that its deposit does not name' as problem
from signature g left join statement t on t.id = g.statement left join deposit d on d.id = t.deposit
where d.id is null or t.ours = 0 or g.signer not in (d.signer, d.cosigner)";

const DEPOSITS_PAY_FOR_ONE: &str = "
select 'funding, deposit 0x' || lower(hex(deposit)) as place, 'it pays for two organisations' as problem
from funding group by deposit having count(*) > 1";

const WORK_IS_WHOLE: &str = "
select 'item ' || i.id as place, 'it has no record, or no organisation' as problem from item i
where (not exists (select 1 from workload w where w.item = i.id)
    and not exists (select 1 from leaf l join imported m on m.statement = l.statement where l.item = i.id))
or not exists (select 1 from organisation o where o.name = i.organisation)
union all
select 'accepted of item ' || a.item || ', revision ' || a.revision, 'there is no such record' from accepted a
where not exists (select 1 from workload w where w.item = a.item and w.revision = a.revision)";

const PAYEES_CAN_BE_PAID: &str = "
select 'payee ' || p.id as place, 'nobody can be paid at that address' as problem
from payee p, chain where p.address in (zeroblob(20), chain.contract)";

const SLOTS_HAVE_ATTEMPTS: &str = "
select 'slot ' || s.id as place, 'no attempt was signed for it' as problem
from slot s where not exists (select 1 from attempt a where a.slot = s.id)";

const SLOTS_ARE_CONTIGUOUS: &str = "
select 'slot ' || id as place, 'there is none for the tx nonce before ' || tx_nonce as problem from (
    select id, sender, tx_nonce, lag(tx_nonce) over (partition by sender order by tx_nonce) as before from slot) s
where before is not null and tx_nonce <> before + 1
and not exists (select 1 from adoption d where d.sender = s.sender and d.tx_nonce >= s.tx_nonce)";

/// What a slot carries is free once it is known what finally consumed its tx nonce. Slots of another sender do not count: what
/// an account that was replaced has sent can land or not, and the contract takes an obligation once.
const OBLIGATIONS_ARE_CARRIED_ONCE: &str = "
select what as place, 'slots ' || min(slot) || ' and ' || max(slot) || ' both carry it' as problem from (
    select 'statement ' || c.statement as what, c.slot from carried_statement c
    union all select 'claim of provider ' || c.provider || ' in 0x' || lower(hex(c.token)), c.slot from carried_claim c
    union all select 'registration of 0x' || lower(hex(c.address)), c.slot from carried_registration c) o
join slot s on s.id = o.slot
where not exists (select 1 from outcome u where u.slot = s.id)
group by what, s.sender having count(*) > 1";

// Joins, so that the audit log is indexed once for each of them.
const ORDERS_ARE_TOLD: &str = "
select 'payee ' || p.id as place, 'the audit log tells no such order' as problem
from payee p left join audit a on a.action = 'payee' and a.subject = p.machine and a.at = p.at
    and lower(a.detail) in (
        '0x' || lower(hex(p.address)), '0x' || lower(hex(p.address)) || ' acts from ' || p.effective_ms)
where a.seq is null
union all
select 'decision ' || d.id, 'the audit log tells no such order'
from decision d left join audit a on a.action = 'decision' and a.subject = 'item ' || d.item and a.at = d.at
    and a.detail = d.verdict || ': ' || d.reason
where a.seq is null
union all
select 'closing ' || c.id, 'the audit log tells no such order'
from closing c left join audit a on a.action = 'closing' and a.subject = c.until_ms || '' and a.at = c.at
where a.seq is null
union all
select 'cut-off of deposit 0x' || lower(hex(c.deposit)), 'the audit log tells no such order'
from cut_off c left join audit a on a.action = 'cut-off' and a.subject = '0x' || lower(hex(c.deposit)) and a.at = c.at
    and a.detail = 'to epoch ' || c.epoch || ', work that ended before ' || c.until_ms || ' ms is regarded as paid: ' || c.reason
where a.seq is null";
