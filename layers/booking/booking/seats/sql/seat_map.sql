-- The seat map of one schedule as one JSON text, built by Postgres: 150 seats as rows cost the handler ten times more.
-- No row when there is no such schedule. One instant for the whole statement: a hold is either shown or counted as lapsed.
-- Columns:
--   the schedule's concert
--   the map; "version" is the sum of the seats' versions, which only ever rises
--   for how many milliseconds it is true if nobody changes a seat: until the earliest of its holds lapses; null when
--      nothing is held
--   whether the seats :numbers have at least :versions here, so whether a replica has replayed them
--   the versions of all seats that were ever changed, "number version number version ...", if :all_versions
--   'cache' or 'database': where the operators want this to be read from
select s.concert_id, format(
    '{"schedule_id":%s,"version":%s,"currency":%s,"seats":[%s]}',
    s.id, m.version, to_json(c.currency), m.seats),
    floor(extract(epoch from m.first_lapse - statement_timestamp()) * 1000)::bigint,
    m.replayed = cardinality(cast(:numbers as integer[])),
    m.versions,
    coalesce((select r.source from reads_change r where r.concert_id = c.id order by r.id desc limit 1), 'cache')
from schedule s
join concert c on c.id = s.concert_id
cross join lateral (
    select coalesce(sum(seat.version), 0) as version, coalesce(string_agg(format(
        '{"number":%s,"section":%s,"row":%s,"price":%s,"state":"%s"}',
        number, to_json(section), to_json(row_label), price,
        case when state = 'held' and held_until <= statement_timestamp() then 'available' else state end
    ), ',' order by number), '') as seats,
    min(held_until) filter (where state = 'held' and held_until > statement_timestamp()) as first_lapse,
    count(*) filter (where seat.version >= marked.version) as replayed,
    coalesce(string_agg(number || ' ' || seat.version, ' ') filter (
        where seat.version > 0 and cast(:all_versions as boolean)), '') as versions
    from seat
    left join unnest(cast(:numbers as integer[]), cast(:versions as bigint[])) as marked (number, version) using (number)
    where seat.schedule_id = s.id
) m
where s.id = :schedule_id
