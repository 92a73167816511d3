-- Thousands of placements may be written by one statement. The directory
-- follows them all at once when their transaction commits, rather than row by
-- row: what a statement wrote waits here until then, and no other transaction
-- ever sees a row of it.
create table place_changes (
    id       bigint generated always as identity primary key,
    tenants  uuid[] not null
);

create function places_begin() returns trigger language plpgsql as $$
begin
    insert into place_changes (tenants)
    select array_agg(distinct tenant_id) from begun where state in ('reserved', 'active')
    having count(*) > 0;
    return null;
end $$;

drop trigger place_begins on placements;
create trigger place_begins after insert on placements
    referencing new table as begun for each statement execute function places_begin();

-- As place_changed: one transaction after another, so that a version that a
-- reader sees is never followed by a smaller one.
create function places_follow() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(8603657889541918722);
    insert into places (tenant_id, version, changed_at)
    select tenant, nextval('place_version'), clock_timestamp() from unnest(new.tenants) tenant
    on conflict (tenant_id) do update
        set version = excluded.version, changed_at = excluded.changed_at;
    delete from place_changes where id = new.id;
    perform pg_notify('webhost_places', '');
    return null;
end $$;

create constraint trigger places_follow after insert on place_changes
    deferrable initially deferred for each row execute function places_follow();

-- A row follows a placement or a tenant, whose own keys hold; to look the
-- tenant up once more costs as much as the row itself.
alter table places drop constraint places_tenant_id_fkey;
