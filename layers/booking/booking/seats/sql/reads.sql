-- Where the hot reads of a concert come from, its schedules and its newest changes, newest first, as JSON text.
select json_build_object(
    'concert_id', c.id,
    'title', c.title,
    'source', coalesce((select source from reads_change where concert_id = c.id order by id desc limit 1), 'cache'),
    'schedule_ids', (select coalesce(json_agg(id order by id), '[]') from schedule where concert_id = c.id),
    'changes', (
        select coalesce(json_agg(json_build_object(
            'at', rfc3339(changed_at), 'source', source, 'by', changed_by, 'reason', reason) order by id desc), '[]')
        from (select * from reads_change where concert_id = c.id
              order by id desc limit cast(:changes as integer)) newest)
)::text
from concert c where c.id = cast(:concert_id as bigint)
