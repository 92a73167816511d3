-- Where a tenant may and may not live. No row: anywhere.
create table placement_rules (
    tenant_id  uuid primary key references tenants (id),
    -- On this node and no other.
    pinned     uuid references nodes (id),
    -- Best in one of these places; anywhere when empty.
    near       text[] not null default '{}',
    -- In one of these places and no other, by contract or law.
    only_in    text[] not null default '{}',
    -- Not on one node with another tenant that has one of these labels.
    apart      text[] not null default '{}',
    set_at     timestamptz not null default now()
);
