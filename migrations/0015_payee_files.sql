-- Files of payout addresses that were taken in, in parts of as many lines as share a commit: one that comes again names no
-- address that was replaced since.
create table payee_file (
    -- Hash of its bytes.
    content blob not null check (length(content) = 32),
    part integer not null,
    at integer not null,
    primary key (content, part)
) strict, without rowid;
create trigger payee_file_is_not_updated before update on payee_file begin select raise(abort, 'payee_file is append-only'); end;
create trigger payee_file_is_not_deleted before delete on payee_file begin select raise(abort, 'payee_file is append-only'); end;
