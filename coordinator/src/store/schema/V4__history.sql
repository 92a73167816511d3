-- Usage over time. Rows are written by COPY when an hour (or a day) is over and
-- never changed: one for a tenant and hour of minutes and of five minutes, one
-- for a tenant and day of hours. A value is null where nothing was seen. Old
-- partitions are dropped as a whole.
--
-- Two coordinators may each write a row for the same tenant and hour, each with
-- what it saw, so there is no key; readers join them.

create table usage_minutes (
    tenant_id           uuid not null,
    -- The start of the hour, or of the day.
    at                  timestamptz not null,
    -- Thousandths of a core.
    cpu                 int[] not null,
    gps_points          int[] not null,
    api_calls           int[] not null,
    api_errors          int[] not null,
    -- Milliseconds, of all requests together.
    request_time        int[] not null,
    -- MiB, as storage.
    memory              int[] not null,
    storage             int[] not null,
    db_connections      int[] not null,
    client_connections  int[] not null,
    vehicles            int[] not null
) partition by range (at);
create index usage_minutes_of_tenant on usage_minutes (tenant_id, at);

create table usage_fives (like usage_minutes) partition by range (at);
create index usage_fives_of_tenant on usage_fives (tenant_id, at);

create table usage_hours (
    like usage_minutes,
    -- The 95th percentile of each hour's five-minute values: thousandths of a
    -- core, hundredths of a connection, hundredths of a point a second.
    cpu_p95             int[] not null,
    connections_p95     int[] not null,
    gps_p95             int[] not null
) partition by range (at);
create index usage_hours_of_tenant on usage_hours (tenant_id, at);

-- The UTC days whose hours are made of their five minutes.
create table usage_days (
    day      date primary key,
    made_at  timestamptz not null default now()
);
