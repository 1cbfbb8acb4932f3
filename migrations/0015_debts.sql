-- Work that was let go is open while more is paid for it than it comes to by now: that is owed back, whatever was decided. What
-- was paid in full came to what the revision did that was paid last.
with promised as (
    select a.item, a.revision, coalesce((
        select r.amount from restated r where r.item = a.item and r.revision = a.revision order by r.id desc limit 1),
        a.amount) as amount
    from accepted a),
let_go as (
    select d.item, (select max(revision) from accepted a where a.item = d.item) as newest, (
        select max(l.revision) from leaf l join settled s on s.statement = l.statement, chain
        where l.item = d.item and s.block <= chain.finalised) as paid
    from decision d
    where d.verdict = 'release' and d.id = (select max(id) from decision last where last.item = d.item))
insert into open (item)
select g.item from let_go g
join promised newest on newest.item = g.item and newest.revision = g.newest
join promised paid on paid.item = g.item and paid.revision = g.paid
join item i on i.id = g.item
where newest.amount < paid.amount and g.newest >= g.paid
    and i.stopped_ms >= coalesce((select max(until_ms) from cut_off c where c.organisation = i.organisation), 0)
on conflict do nothing;
