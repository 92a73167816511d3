-- The WebHost application's schema, with gps_positions as one plain table.
-- Written by us after the application's description; on a real node its own
-- migrations make it. Run by its owner, webhost_app, after roles.sql. Every
-- tenant table carries customer_id; the tenant itself is the row of customers.

-- ------------------------------------------------ shared, without a tenant

create table schema_migrations (
    version     bigint primary key,
    inserted_at timestamp(0) not null default now()
);
insert into schema_migrations (version) values (20250101000000), (20250412093000), (20251020161500);

create table plans (
    id             text primary key,
    name           text not null,
    price_cents    bigint not null,
    max_vehicles   int not null,
    max_gps_points bigint not null,
    retention_days int not null
);
insert into plans values
    ('hobby',        'Hobby',         1500,   5,    50000,  30),
    ('starter',      'Starter',       4900,  25,   500000,  90),
    ('professional', 'Professional', 14900, 100,  2000000, 365),
    ('business',     'Business',     39900, 500, 10000000, 730);

create table platform_users (
    id          uuid primary key,
    email       text not null unique,
    role        text not null,
    inserted_at timestamptz not null default now()
);
insert into platform_users values
    ('00000000-0000-4000-8000-000000000001', 'support@webhost.example', 'support', '2025-01-01T00:00:00Z'),
    ('00000000-0000-4000-8000-000000000002', 'ops@webhost.example', 'operator', '2025-01-01T00:00:00Z');

-- ------------------------------------------------------------- the tenants

create table customers (
    id                 uuid primary key,
    name               text not null,
    slug               text not null unique,
    email              text not null,
    company_name       text not null default '',
    billing_email      text not null default '',
    status             text not null default 'active',
    account_manager_id uuid references platform_users (id),
    settings           jsonb not null default '{}',
    inserted_at        timestamptz not null default now(),
    updated_at         timestamptz not null default now()
);

create table customer_users (
    id              uuid primary key default gen_random_uuid(),
    customer_id     uuid not null references customers (id) on delete cascade,
    email           text not null,
    hashed_password text not null,
    role            text not null default 'member',
    confirmed_at    timestamptz,
    inserted_at     timestamptz not null default now(),
    unique (customer_id, email)
);

create table api_keys (
    id           uuid primary key default gen_random_uuid(),
    customer_id  uuid not null references customers (id) on delete cascade,
    created_by   uuid references customer_users (id) on delete set null,
    name         text not null,
    key_hash     bytea not null unique,
    last_used_at timestamptz,
    inserted_at  timestamptz not null default now()
);
create index api_keys_customer_id on api_keys (customer_id);

create table subscriptions (
    id                   uuid primary key default gen_random_uuid(),
    customer_id          uuid not null references customers (id) on delete cascade,
    plan_id              text not null references plans (id),
    status               text not null default 'active',
    amount               numeric(12, 2) not null default 0,
    current_period_start timestamptz not null default now(),
    current_period_end   timestamptz,
    inserted_at          timestamptz not null default now()
);
create index subscriptions_customer_id on subscriptions (customer_id);

-- ------------------------------------------------------------ their fleets

create table vehicles (
    id          uuid primary key default gen_random_uuid(),
    customer_id uuid not null references customers (id) on delete cascade,
    name        text not null,
    plate       text not null,
    device_id   text not null unique,
    odometer_m  bigint not null default 0,
    active      boolean not null default true,
    metadata    jsonb not null default '{}',
    inserted_at timestamptz not null default now(),
    unique (customer_id, plate)
);

create table drivers (
    id          uuid primary key default gen_random_uuid(),
    customer_id uuid not null references customers (id) on delete cascade,
    vehicle_id  uuid references vehicles (id) on delete set null,
    name        text not null,
    license_no  text,
    phones      text[] not null default '{}',
    inserted_at timestamptz not null default now()
);
create index drivers_customer_id on drivers (customer_id);
create index drivers_vehicle_id on drivers (vehicle_id);

create table gps_positions (
    id          uuid primary key,
    customer_id uuid not null references customers (id),
    vehicle_id  uuid not null references vehicles (id),
    recorded_at timestamptz not null,
    latitude    double precision not null,
    longitude   double precision not null,
    speed       real,
    heading     real,
    accuracy    real,
    altitude    real,
    metadata    jsonb,
    location    geometry(Point, 4326) not null,
    inserted_at timestamptz not null default now()
);
create index gps_positions_customer_time on gps_positions (customer_id, recorded_at desc);
create index gps_positions_vehicle_time on gps_positions (vehicle_id, recorded_at desc);

create table usage_metrics (
    id          uuid primary key default gen_random_uuid(),
    customer_id uuid not null references customers (id) on delete cascade,
    metric      text not null,
    value       double precision not null,
    recorded_at timestamptz not null,
    inserted_at timestamptz not null default now(),
    unique (customer_id, metric, recorded_at)
);

create table geofences (
    id          uuid primary key default gen_random_uuid(),
    customer_id uuid not null references customers (id) on delete cascade,
    name        text not null,
    boundary    geometry(Polygon, 4326) not null,
    area_m2     double precision generated always as (st_area(boundary::geography)) stored,
    inserted_at timestamptz not null default now()
);
create index geofences_customer_id on geofences (customer_id);
create index geofences_boundary on geofences using gist (boundary);

create table routes (
    id          uuid primary key default gen_random_uuid(),
    customer_id uuid not null references customers (id) on delete cascade,
    vehicle_id  uuid not null references vehicles (id) on delete cascade,
    geofence_id uuid references geofences (id) on delete set null,
    name        text not null,
    path        geometry(LineString, 4326),
    distance_m  bigint not null default 0,
    started_at  timestamptz,
    inserted_at timestamptz not null default now()
);
create index routes_customer_id on routes (customer_id);
create index routes_vehicle_id on routes (vehicle_id);

create table deployments (
    id          uuid primary key default gen_random_uuid(),
    customer_id uuid not null references customers (id) on delete cascade,
    mode        text not null,
    region      text not null default 'iad',
    status      text not null default 'active',
    config      jsonb not null default '{}',
    inserted_at timestamptz not null default now()
);
create index deployments_customer_id on deployments (customer_id);

-- A composite key over an identity column, so that both occur.
create table infrastructure_events (
    customer_id   uuid not null references customers (id) on delete cascade,
    seq           bigint generated by default as identity,
    deployment_id uuid references deployments (id) on delete set null,
    kind          text not null,
    payload       jsonb not null default '{}',
    inserted_at   timestamptz not null default now(),
    primary key (customer_id, seq)
);

-- Binary updates of the collaborative documents (CRDT).
create table sync_updates (
    id          bigint generated always as identity,
    customer_id uuid not null references customers (id) on delete cascade,
    document    text not null,
    update      bytea not null,
    inserted_at timestamptz not null default now(),
    primary key (customer_id, document, id)
);
