-- The concerts whose line has ever started, but for those whose sale ended so long ago that no pass can be left, with
-- the settings of each.
select concert.id, line_settings(concert.id)::text
from concert
where exists (select from gate_change where concert_id = concert.id and action = 'started')
  and (concert.sales_closed_at is null or concert.sales_closed_at > now() - interval '1 day')
