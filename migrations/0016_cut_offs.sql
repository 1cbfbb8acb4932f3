-- A cut-off covers what was noticed of its epochs until then. Those of before covered all that there was of them, noticed or not:
-- that counts as noticed by then, so that nothing freezes again which the operator has cut off.
drop trigger unknown_statement_is_not_updated;
update unknown_statement as u set at = min(
    u.at,
    coalesce((select min(c.at) from cut_off c where c.deposit = u.deposit and c.epoch >= u.epoch), u.at),
    -- What has settled is of its own deposit, whatever the name of a file said.
    coalesce((
        select min(c.at) from statement t join settled s on s.statement = t.id join cut_off c on c.deposit = t.deposit
        where t.digest = u.digest and c.epoch >= t.epoch), u.at));
create trigger unknown_statement_is_not_updated before update on unknown_statement begin select raise(abort, 'unknown_statement is append-only'); end;

insert into unknown_statement (digest, deposit, epoch, seen, at)
select t.digest, t.deposit, t.epoch, 'the chain', min(c.at)
from statement t join settled s on s.statement = t.id join cut_off c on c.deposit = t.deposit
where t.ours = 0 and c.epoch >= t.epoch group by t.digest, t.deposit, t.epoch
on conflict do nothing;
