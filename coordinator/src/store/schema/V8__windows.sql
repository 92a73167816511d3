-- When moves of a tenant, or from and to a node, may begin. No row: always.
create table move_windows (
    tenant_id  uuid references tenants (id),
    node_id    uuid references nodes (id),
    -- As "mon-fri 22:00-04:00 +01:00".
    opens      text not null,
    set_at     timestamptz not null default now(),
    check ((tenant_id is null) <> (node_id is null))
);
create unique index move_windows_of_tenant on move_windows (tenant_id, opens) where tenant_id is not null;
create unique index move_windows_of_node on move_windows (node_id, opens) where node_id is not null;
