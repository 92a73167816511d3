-- What a superuser does once on a node's PostgreSQL, in the tenants' database
-- (`webhost`): the roles, the extension, and the one grant that a role without
-- superuser rights can't do without. May be run again.
--
-- webhost_app    owns the schema; the application connects as this role.
-- webhost_agent  the agent and its mover. Not a superuser: it reads the
--                statistics (pg_monitor), acts as the owner by membership,
--                creates its own schema, and may set session_replication_role.

do $$
begin
    if not exists (select from pg_roles where rolname = 'webhost_app') then
        create role webhost_app login nosuperuser nocreatedb nocreaterole;
    end if;
    if not exists (select from pg_roles where rolname = 'webhost_agent') then
        create role webhost_agent login nosuperuser nocreatedb nocreaterole inherit;
    end if;
    execute format('grant create, connect, temporary on database %I to webhost_app, webhost_agent',
                   current_database());
end
$$;

grant pg_monitor to webhost_agent;
grant webhost_app to webhost_agent;
grant set on parameter session_replication_role to webhost_agent;

create extension if not exists postgis;
grant create, usage on schema public to webhost_app;
