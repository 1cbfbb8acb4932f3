-- What statements had settled of a leaf's item when the leaf was stated. Null for a carry, for the operator's fee, and where
-- nothing tells.
alter table leaf add column settled blob check (length(settled) = 16);
