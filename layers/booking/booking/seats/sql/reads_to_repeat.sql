-- The concerts whose readers are told again: those that read from the database, and those whose change is younger than
-- :seconds. With the newest source and the concert's schedules.
select newest.concert_id, newest.source, array(select id from schedule where concert_id = newest.concert_id)
from (select distinct on (concert_id) concert_id, source, changed_at from reads_change order by concert_id, id desc) newest
where newest.source = 'database' or newest.changed_at > clock_timestamp() - make_interval(secs => cast(:seconds as integer))
