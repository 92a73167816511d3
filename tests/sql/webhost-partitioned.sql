-- Run after webhost.sql: gps_positions once more, partitioned by day. The key
-- of a partitioned table contains what it is partitioned by.

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

-- One partition a day around today, and a default for what is older or newer.
do $$
declare
    day date;
begin
    for day in select generate_series(current_date - 14, current_date + 2, interval '1 day')::date loop
        execute format('create table %I partition of gps_positions for values from (%L) to (%L)',
                       'gps_positions_' || to_char(day, 'YYYYMMDD'),
                       day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
    end loop;
    create table gps_positions_default partition of gps_positions default;
end
$$;
