-- How each tenant's usage stands to the limits of its plan. No row: well below,
-- and never told otherwise.
create table limits (
    tenant_id    uuid not null references tenants (id),
    name         text not null,
    level        text not null check (level in ('clear', 'warning', 'breach')),
    used         bigint not null,
    allowed      bigint not null,
    since        timestamptz not null,
    -- The UTC days on which it was told last.
    warned_on    date,
    breached_on  date,
    primary key (tenant_id, name)
);
