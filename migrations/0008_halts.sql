-- Whether money must not move is asked after every comparison with the contract.
create index audit_halts on audit (actor, seq) where action in ('halt', 'halt lifted');
