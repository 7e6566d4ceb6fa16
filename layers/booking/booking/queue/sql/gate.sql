-- What Postgres knows of a concert's gate, as JSON text: its settings and its newest changes, newest first.
select json_build_object(
    'concert_id', concert.id,
    'title', concert.title,
    'started', exists (select from gate_change where concert_id = concert.id and action = 'started'),
    'sales_open_at', rfc3339(concert.sales_open_at),
    'sales_closed_at', rfc3339(concert.sales_closed_at),
    'line_mode', line_mode,
    'draw', draw_of(concert),
    'settings', line_settings(concert.id)::jsonb - 'seed',
    'changes', (
        select coalesce(json_agg(json_build_object(
            'id', id, 'at', rfc3339(changed_at), 'action', action, 'epoch', epoch, 'state', state,
            'capacity', capacity, 'rate', rate_per_s, 'paused', paused, 'message', message,
            'by', changed_by, 'reason', reason) order by id desc), '[]')
        from (select * from gate_change where concert_id = concert.id
              order by id desc limit cast(:changes as integer)) newest)
)::text
from concert where concert.id = cast(:concert_id as bigint)
