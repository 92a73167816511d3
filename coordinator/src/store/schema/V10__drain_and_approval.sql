-- Until when a draining node is to be empty, and when somebody was told that it
-- will not be.
alter table nodes
    add column drain_by timestamptz,
    add column drain_told_at timestamptz;

-- Who let a signup have a plan that leaves needs unmet, and which needs.
alter table tenants add column approved jsonb;
