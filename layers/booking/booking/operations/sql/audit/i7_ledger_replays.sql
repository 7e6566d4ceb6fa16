-- I7: the ledger, replayed, gives the seats' present state; and every step of it is one that the rules allow.
with steps as (
    select l.*,
           lag(version, 1, 0::bigint) over seat_history as version_before,
           lag(state, 1, 'available') over seat_history as state_before,
           lag(held_until) over seat_history as held_until_before,
           lag(reservation_id) over seat_history as reservation_before
    from seat_ledger l
    window seat_history as (partition by schedule_id, number order by version)
), last_steps as (
    select distinct on (schedule_id, number) * from seat_ledger order by schedule_id, number, version desc
)
select format('seat %s of schedule %s', number, schedule_id),
       format('version %s (%s for %s) may not follow version %s (%s for %s)', version, event, reservation_id,
              version_before, state_before, coalesce(reservation_before::text, 'nobody'))
from steps
where version <> version_before + 1
   or not case event
        when 'held' then state = 'held' and (state_before = 'available'
                                             or (state_before = 'held' and held_until_before <= at))
        when 'extended' then state = 'held' and state_before = 'held' and reservation_before = reservation_id
                             and held_until > held_until_before
        when 'sold' then state = 'sold' and (state_before = 'available'
                                             or (state_before = 'held' and (reservation_before = reservation_id
                                                                            or held_until_before <= at)))
        when 'refunded' then state = 'available' and state_before = 'sold' and reservation_before = reservation_id
        else state = 'available' and state_before = 'held' and reservation_before = reservation_id
      end
union all
select format('seat %s of schedule %s', coalesce(s.number, l.number), coalesce(s.schedule_id, l.schedule_id)),
       format('is version %s, %s for %s until %s; the ledger ends with version %s, %s for %s until %s',
              s.version, s.state, s.reservation_id, s.held_until, l.version, l.state, l.reservation_id, l.held_until)
from (select * from seat where version > 0 or state <> 'available') s
full join last_steps l on l.schedule_id = s.schedule_id and l.number = s.number
where s.version is distinct from l.version
   or s.state is distinct from l.state
   or s.held_until is distinct from l.held_until
   or s.reservation_id is distinct from case when l.state = 'available' then null else l.reservation_id end
