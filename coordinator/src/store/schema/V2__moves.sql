-- A move lives on after its switch: the way back, then an old copy that is
-- kept for days. While only its leftovers are dealt with, the tenant may have
-- a new move.
drop index moves_one_per_tenant;
create unique index moves_one_per_tenant on moves (tenant_id)
    where ended_at is null
      and state not in ('kept', 'clean_up', 'close_tunnel', 'clean_target');
create index moves_open on moves (created_at) where ended_at is null;
