-- Run after webhost.sql, for the chaos writers alone: keys that change under
-- the rows that point to them, and a second unique key whose values are
-- swapped. The application's own schema has neither.

create table zones (
    customer_id uuid not null references customers (id) on delete cascade,
    code        text not null,
    rank        bigint not null,
    primary key (customer_id, code),
    unique (customer_id, rank)
);

create table zone_visits (
    id          uuid primary key,
    customer_id uuid not null,
    zone_code   text not null,
    foreign key (customer_id, zone_code) references zones (customer_id, code)
        on update cascade on delete cascade
);
create index zone_visits_zone on zone_visits (customer_id, zone_code);
