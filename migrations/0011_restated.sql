-- What an accepted revision comes to by a statement that was brought back after it was accepted here, maybe at another rate.
-- The last one counts.
create table restated (
    id integer primary key,
    item integer not null,
    revision integer not null,
    amount blob not null check (length(amount) = 16),
    statement integer not null references statement,
    foreign key (item, revision) references accepted
) strict;
create index restated_by_revision on restated (item, revision);
create trigger restated_is_not_updated before update on restated begin select raise(abort, 'restated is append-only'); end;
create trigger restated_is_not_deleted before delete on restated begin select raise(abort, 'restated is append-only'); end;
