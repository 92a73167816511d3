-- The fleet's durable state. Everything that must survive the coordinator is
-- here; what it keeps in memory can be rebuilt from it and from the agents.

create table nodes (
    id                    uuid primary key,
    name                  text not null unique,
    kind                  text not null check (kind in ('shared', 'dedicated')),
    -- Names a shape of the configuration ("ax52", "shared-cpu-512", …).
    shape                 text not null,
    region                text not null,
    state                 text not null default 'joining'
                          check (state in ('joining', 'active', 'draining', 'revoked')),
    -- What the agent measured, or was told by an administrator to be less.
    -- Null until the first Hello.
    measured_cpu_millicores bigint,
    measured_memory_bytes   bigint,
    measured_disk_bytes     bigint,
    measured_db_connections bigint,
    tunnel_address        text not null default '',
    agent_version         text not null default '',
    boot_id               text not null default '',
    certificate_serial    text,
    certificate_not_after timestamptz,
    connected_at          timestamptz,
    last_seen_at          timestamptz,
    revoked_at            timestamptz,
    created_at            timestamptz not null default now()
);

create table tenants (
    id              uuid primary key,
    slug            text not null unique,
    name            text not null,
    email           text not null,
    company_name    text not null default '',
    billing_email   text not null default '',
    plan            text not null,
    -- What the signup stated and what an administrator set; the silent parts
    -- take their defaults when a decision is made.
    profile         jsonb not null default '{}',
    state           text not null default 'waiting'
                    check (state in ('waiting', 'provisioning', 'active', 'suspended', 'leaving', 'gone')),
    state_reason    text not null default '',
    -- The generation of the side that serves the tenant.
    epoch           bigint not null default 1,
    evaluated_at    timestamptz,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now()
);

-- One row per stay of a tenant on a node.
create table placements (
    id            bigint generated always as identity primary key,
    tenant_id     uuid not null references tenants (id),
    node_id       uuid not null references nodes (id),
    mode          text not null check (mode in ('multi_tenant', 'single_tenant')),
    -- reserved: promised, not yet used.  active: serves the tenant.
    -- incoming: the target of a move.  kept: the old copy of a move.
    -- ended: history.
    state         text not null check (state in ('reserved', 'active', 'incoming', 'kept', 'ended')),
    epoch         bigint not null,
    since         timestamptz not null default now(),
    expires_at    timestamptz,
    ended_at      timestamptz
);
create unique index placements_one_home on placements (tenant_id) where state in ('reserved', 'active');
create unique index placements_one_target on placements (tenant_id) where state = 'incoming';
create index placements_of_node on placements (node_id) where state in ('reserved', 'active', 'incoming', 'kept');

create table decisions (
    id            uuid primary key,
    tenant_id     uuid not null references tenants (id),
    at            timestamptz not null default now(),
    -- "signup", "schedule", "limit", "admin", "plan_change".
    trigger       text not null,
    -- The profile and usage that the engine saw, and all that it answered.
    inputs        jsonb not null,
    decision      jsonb not null,
    outcome       text not null check (outcome in ('placed', 'stay', 'migrate', 'unplaced'))
);
create index decisions_of_tenant on decisions (tenant_id, at desc);

create table moves (
    id              uuid primary key,
    tenant_id       uuid not null references tenants (id),
    kind            text not null check (kind in ('upgrade', 'downgrade', 'lateral', 'dedicated')),
    source_node_id  uuid not null references nodes (id),
    target_node_id  uuid references nodes (id),
    decision_id     uuid references decisions (id),
    reason          text not null,
    requested_by    text not null,
    -- awaiting_approval, waiting_for_node, then the steps, then an end.
    state           text not null,
    epoch           bigint not null,
    approved_by     text,
    approved_at     timestamptz,
    -- The durable part of the driver: what a restarted coordinator needs.
    durable         jsonb not null default '{}',
    progress        jsonb not null default '{}',
    result          jsonb not null default '{}',
    error           text,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    ended_at        timestamptz
);
create unique index moves_one_per_tenant on moves (tenant_id) where ended_at is null;

create table move_events (
    id        bigint generated always as identity primary key,
    move_id   uuid not null references moves (id),
    at        timestamptz not null default now(),
    state     text not null,
    message   text not null,
    detail    jsonb not null default '{}'
);
create index move_events_of_move on move_events (move_id, id);

-- Commands on their way to agents: written in the transaction that decides
-- them, delivered until they are answered or expire.
create table commands (
    id          uuid primary key,
    node_id     uuid not null references nodes (id),
    move_id     uuid references moves (id),
    -- The protobuf of webhost.fleet.v1.Command.
    body        bytea not null,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null,
    accepted_at timestamptz,
    -- The protobuf of the CommandReply that ended it.
    reply       bytea,
    replied_at  timestamptz
);
create index commands_open on commands (node_id, created_at) where replied_at is null;
create index commands_of_move on commands (move_id);

create table audit (
    id        bigint generated always as identity primary key,
    at        timestamptz not null default now(),
    -- "token NAME", "node NAME", "system".
    actor     text not null,
    action    text not null,
    -- "tenant", "node", "move", "token", …
    subject   text not null,
    subject_id text not null,
    detail    jsonb not null default '{}'
);
create index audit_of_subject on audit (subject, subject_id, id);

create table api_tokens (
    id          uuid primary key,
    name        text not null unique,
    role        text not null check (role in ('admin', 'app', 'viewer')),
    sha256      bytea not null unique,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz,
    revoked_at  timestamptz,
    last_used_at timestamptz
);

create table join_tokens (
    sha256      bytea primary key,
    node_name   text not null,
    kind        text not null check (kind in ('shared', 'dedicated')),
    shape       text not null,
    region      text not null,
    created_by  text not null,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null,
    used_at     timestamptz,
    node_id     uuid
);

-- The certificate authorities: role is "root", "node", "coordinator", "admin".
create table authorities (
    role            text primary key,
    certificate_der bytea not null,
    -- Encrypted with the key from the credential store (AES-256-GCM).
    key_sealed      bytea not null,
    created_at      timestamptz not null default now()
);

create table idempotency_keys (
    key          text primary key,
    -- SHA-256 of the request: the same key with another request is an error.
    request      bytea not null,
    status       int,
    response     jsonb,
    created_at   timestamptz not null default now()
);

-- The last report applied per node, so that a replayed one changes nothing.
create table report_cursors (
    node_id   uuid primary key references nodes (id),
    epoch     bigint not null,
    sequence  bigint not null,
    at        timestamptz not null default now()
);

-- Roll-ups per tenant, node and UTC hour.
create table usage_hourly (
    tenant_id             uuid not null,
    node_id               uuid not null,
    hour                  timestamptz not null,
    cpu_us                bigint not null default 0,
    gps_points            bigint not null default 0,
    api_calls             bigint not null default 0,
    api_errors            bigint not null default 0,
    request_duration_us   bigint not null default 0,
    batch_operations      bigint not null default 0,
    realtime_operations   bigint not null default 0,
    memory_bytes_max      bigint not null default 0,
    storage_bytes         bigint not null default 0,
    db_connections_max    bigint not null default 0,
    client_connections_max bigint not null default 0,
    vehicles              bigint not null default 0,
    -- True where any part was split from a shared process.
    attributed            boolean not null default false,
    primary key (tenant_id, node_id, hour)
);
create index usage_hourly_by_hour on usage_hourly (hour);

create table leases (
    name        text primary key,
    holder      text not null,
    epoch       bigint not null,
    expires_at  timestamptz not null
);
