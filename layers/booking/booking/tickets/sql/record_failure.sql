-- Remember that an event could not be applied, and why; answers how often that has happened.
insert into inbox as i (consumer, event_id, attempts, last_error) values ('tickets', cast(:event_id as uuid), 1, :error)
on conflict (consumer, event_id) do update set attempts = i.attempts + 1, last_error = excluded.last_error
returning attempts
