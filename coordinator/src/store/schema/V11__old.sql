-- Old rows are looked for by their age.
create index decisions_by_age on decisions (at);
create index commands_by_age on commands (created_at);
create index move_events_by_age on move_events (at);
create index audit_by_age on audit (at);
create index moves_of_decision on moves (decision_id) where decision_id is not null;
