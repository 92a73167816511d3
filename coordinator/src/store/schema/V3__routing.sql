-- Where requests of a tenant go: its host name, and a directory of places
-- whose versions grow with every change, so that whoever has seen one version
-- can ask for what came after it.

-- Empty where a tenant has none: then nothing is routed by host name.
alter table tenants add column host text not null default '';
create unique index tenants_host on tenants (host) where host <> '';

create sequence place_version;

-- One row a tenant: the version of its place. Which place that is stands in
-- placements.
create table places (
    tenant_id   uuid primary key references tenants (id),
    version     bigint not null unique,
    changed_at  timestamptz not null
);

-- Runs when a transaction commits, one after another: a version that a reader
-- sees is never followed by a smaller one.
create function place_changed() returns trigger language plpgsql as $$
declare
    tenant uuid;
begin
    if tg_table_name = 'tenants' then tenant := new.id; else tenant := new.tenant_id; end if;
    perform pg_advisory_xact_lock(8603657889541918722);
    insert into places (tenant_id, version, changed_at)
    values (tenant, nextval('place_version'), clock_timestamp())
    on conflict (tenant_id) do update
        set version = excluded.version, changed_at = excluded.changed_at;
    perform pg_notify('webhost_places', '');
    return null;
end $$;

create constraint trigger place_begins after insert on placements
    deferrable initially deferred for each row
    when (new.state in ('reserved', 'active')) execute function place_changed();
create constraint trigger place_changes after update of state, node_id on placements
    deferrable initially deferred for each row
    when ((old.state in ('reserved', 'active') or new.state in ('reserved', 'active'))
          and (old.state, old.node_id) is distinct from (new.state, new.node_id))
    execute function place_changed();
create constraint trigger tenant_changes after update of state, host on tenants
    deferrable initially deferred for each row
    when ((old.state, old.host) is distinct from (new.state, new.host))
    execute function place_changed();

insert into places (tenant_id, version, changed_at)
select tenant_id, nextval('place_version'), now() from placements
where state in ('reserved', 'active');

-- What name servers should answer for a host name, and what they were told
-- last. Names and places outlive the tenants here: a record is withdrawn, not
-- forgotten.
create table dns_records (
    host          text primary key,
    tenant_id     uuid not null references tenants (id),
    node_id       uuid references nodes (id),
    -- The version of the tenant's place that this follows.
    version       bigint not null,
    published_at  timestamptz,
    error         text not null default '',
    updated_at    timestamptz not null default now()
);
