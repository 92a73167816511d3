-- Run after webhost.sql, where TimescaleDB is installed: gps_positions once
-- more, as a hypertable of one day a chunk, with its compression set up.

alter table gps_positions rename to gps_positions_plain;
create table gps_positions (
    like gps_positions_plain including defaults,
    primary key (id, recorded_at),
    foreign key (customer_id) references customers (id),
    foreign key (vehicle_id) references vehicles (id)
);
drop table gps_positions_plain;
select create_hypertable('gps_positions', 'recorded_at', chunk_time_interval => interval '1 day');
create index gps_positions_customer_time on gps_positions (customer_id, recorded_at desc);
create index gps_positions_vehicle_time on gps_positions (vehicle_id, recorded_at desc);
alter table gps_positions set (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'customer_id, vehicle_id',
    timescaledb.compress_orderby = 'recorded_at desc'
);
