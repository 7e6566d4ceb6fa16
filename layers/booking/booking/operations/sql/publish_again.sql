-- Let the relay publish the events of the last seconds once more. Consumers know an event by its id.
update outbox set published_at = null
where published_at > clock_timestamp() - make_interval(secs => cast(:since_s as integer))
returning id
