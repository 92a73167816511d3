-- Run after webhost.sql, where TimescaleDB is not installed: a stand-in for a
-- hypertable. gps_positions is partitioned natively by day, and the views and
-- functions that the mover asks TimescaleDB give the answers that the
-- extension would, with the columns that it documents.
--
-- What this shows: what the mover does with such answers, and that a move
-- keeps every row whichever way it goes. What it can't show: compression (a
-- chunk that is called compressed here is an ordinary partition), the
-- extension's own cloning of triggers, its making of chunks on insert, its
-- planner and its limits, privileges on its jobs, and its locks.

alter table gps_positions rename to gps_positions_plain;
create table gps_positions (
    like gps_positions_plain including defaults,
    primary key (id, recorded_at),
    foreign key (customer_id) references customers (id),
    foreign key (vehicle_id) references vehicles (id)
) partition by range (recorded_at);
drop table gps_positions_plain;
create index gps_positions_customer_time on gps_positions (customer_id, recorded_at desc);
create index gps_positions_vehicle_time on gps_positions (vehicle_id, recorded_at desc);

create schema _timescaledb_internal;
create schema _timescaledb_catalog;
create schema timescaledb_information;

-- Which chunks are called compressed.
create table _timescaledb_catalog.compressed (chunk name primary key);
-- The jobs, and the continuous aggregates.
create table _timescaledb_catalog.job (
    job_id int primary key, proc_schema name not null, proc_name name not null,
    scheduled boolean not null, hypertable_schema name, hypertable_name name);
create table _timescaledb_catalog.aggregate (view_schema name not null, view_name name not null);
-- How many dimensions and what interval the hypertable is said to have.
create table _timescaledb_catalog.said (num_dimensions smallint not null, time_interval interval not null);
insert into _timescaledb_catalog.said values (1, interval '1 day');

create view timescaledb_information.chunks as
select 'public'::name as hypertable_schema, 'gps_positions'::name as hypertable_name,
       n.nspname as chunk_schema, c.relname as chunk_name,
       'recorded_at'::name as primary_dimension, 'timestamptz'::regtype as primary_dimension_type,
       substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \(''([^'']+)''\)')::timestamptz as range_start,
       substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''([^'']+)''\)')::timestamptz as range_end,
       null::bigint as range_start_integer, null::bigint as range_end_integer,
       exists (select from _timescaledb_catalog.compressed k where k.chunk = c.relname) as is_compressed,
       null::name as chunk_tablespace
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_namespace n on n.oid = c.relnamespace
where i.inhparent = 'public.gps_positions'::regclass;

create view timescaledb_information.hypertables as
select 'public'::name as hypertable_schema, 'gps_positions'::name as hypertable_name,
       current_user::name as owner, s.num_dimensions,
       (select count(*) from timescaledb_information.chunks) as num_chunks,
       true as compression_enabled, null::name[] as tablespaces
from _timescaledb_catalog.said s;

create view timescaledb_information.dimensions as
select 'public'::name as hypertable_schema, 'gps_positions'::name as hypertable_name,
       1::bigint as dimension_number, 'recorded_at'::name as column_name,
       'timestamptz'::regtype as column_type, 'Time'::text as dimension_type,
       s.time_interval, null::bigint as integer_interval, null::name as integer_now_func,
       null::smallint as num_partitions
from _timescaledb_catalog.said s;

create view timescaledb_information.compression_settings as
select 'public'::name as hypertable_schema, 'gps_positions'::name as hypertable_name, v.*
from (values ('customer_id'::name, 1::smallint, null::smallint, null::boolean, null::boolean),
             ('vehicle_id', 2, null, null, null),
             ('recorded_at', null, 1, false, true))
     v(attname, segmentby_column_index, orderby_column_index, orderby_asc, orderby_nullsfirst);

create view timescaledb_information.jobs as
select job_id, proc_schema, proc_name, scheduled, hypertable_schema, hypertable_name
from _timescaledb_catalog.job;

create view timescaledb_information.continuous_aggregates as
select 'public'::name as hypertable_schema, 'gps_positions'::name as hypertable_name, view_schema, view_name
from _timescaledb_catalog.aggregate;

create function alter_job(job_id int, scheduled boolean default null) returns void language sql
    as 'update _timescaledb_catalog.job j set scheduled = $2 where j.job_id = $1';

-- The chunk of one day, owned by the owner as all are; the extension would make
-- it with the first row.
create function make_chunk(day date) returns void language plpgsql security definer as $$
begin
    execute format('create table _timescaledb_internal.%I partition of public.gps_positions for values from (%L) to (%L)',
                   '_hyper_1_' || to_char(day, 'YYYYMMDD') || '_chunk',
                   day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
end
$$;

-- Drops the chunks that end by `older_than`, and fires no trigger, as there.
create function drop_chunks(relation regclass, older_than timestamptz) returns setof text language plpgsql as $$
declare
    chunk text;
begin
    for chunk in select format('%I.%I', c.chunk_schema, c.chunk_name) from timescaledb_information.chunks c
                 where c.range_end <= older_than order by c.range_start loop
        execute format('drop table %s', chunk);
        return next chunk;
    end loop;
end
$$;

select make_chunk(day::date) from generate_series(current_date - 14, current_date + 2, interval '1 day') day;
