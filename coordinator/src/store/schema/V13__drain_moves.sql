-- Since when the moves of a draining node's tenants are asked for as soon as they
-- can be; none where a person asks for each.
alter table nodes add column drain_moves_from timestamptz;
