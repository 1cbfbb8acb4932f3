-- Which deposits name a key that attests here is asked whenever something could be promised.
create index deposit_by_signer on deposit (signer);
