-- What is asked for again and again must not read what is not asked about.

-- A tenant's stays, newest first; its placements are history for ever.
create index placements_of_tenant on placements (tenant_id, since);
create index placements_to_expire on placements (expires_at) where state = 'reserved';
create index moves_of_tenant on moves (tenant_id, created_at);
-- Looked for every few seconds, and mostly nobody is found.
create index tenants_waiting on tenants (created_at, id) where state = 'waiting';
create index tenants_unnamed on tenants (id) where host = '' and state <> 'gone';
create index dns_failed on dns_records (updated_at) where published_at is null;
create index idempotency_by_age on idempotency_keys (created_at);
