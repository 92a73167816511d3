-- Minutes are written in parts of twelve, so that a coordinator
-- keeps no more than that of each tenant in memory. The minutes of a day that are
-- there are dropped; their five minutes stay.
drop table usage_minutes;

create table usage_minutes (
    tenant_id  uuid not null,
    -- The first minute; tenants' parts begin at different ones.
    at         timestamptz not null,
    -- The ten columns of usage_fives, as coordinator/src/usage/part.rs packs them.
    minutes    bytea not null
) partition by range (at);
create index usage_minutes_of_tenant on usage_minutes (tenant_id, at);
-- Rows come in the order of time: an hour's are near each other.
create index usage_minutes_by_time on usage_minutes using brin (at);

-- Every hour before this one has five minutes made of its minutes; one row.
create table usage_made (
    before   timestamptz not null,
    one      boolean primary key default true check (one)
);
-- The last one may still be running.
insert into usage_made (before) select max(at) from usage_fives having max(at) is not null;
