-- Which organisations a deposit has ever been configured to pay for. The configuration may name it no more; what it paid is
-- paid all the same, and what is unknown of it freezes whoever it paid for.
create table paid_for (
    deposit blob not null check (length(deposit) = 32),
    organisation text not null references organisation,
    primary key (deposit, organisation)
) strict, without rowid;
insert into paid_for (deposit, organisation) select deposit, organisation from funding;

create trigger paid_for_is_not_updated before update on paid_for begin select raise(abort, 'paid_for is append-only'); end;
create trigger paid_for_is_not_deleted before delete on paid_for begin select raise(abort, 'paid_for is append-only'); end;
