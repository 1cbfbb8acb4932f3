-- Decisions that were brought back before the work that they are about, until that is taken in again.
create table remembered (
    id integer primary key,
    source text not null,
    external_id text not null,
    verdict text not null check (verdict in ('hold', 'release', 'dispute', 'pay')),
    reason text not null,
    at integer not null,
    unique (source, external_id, verdict, reason, at)
) strict;
create trigger remembered_is_not_updated before update on remembered begin select raise(abort, 'remembered is append-only'); end;
create trigger remembered_is_not_deleted before delete on remembered begin select raise(abort, 'remembered is append-only'); end;
