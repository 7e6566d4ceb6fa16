-- A concert of a drill's own: on sale, with :schedules schedules of :seats seats each, and the gate it opens with.
-- Schedule ids follow from the concert's (:id * 100 + 1, …). Not safe to run twice with one id.
with added as (
    insert into concert (id, title, artist, venue, sales_open_at, refund_until)
    values (cast(:id as bigint), :title, 'Encore', 'Drill Hall', now() - interval '1 hour', now() + interval '59 days')
), gated as (
    insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, message, reason)
    values (:id, 1, 'open', cast(:capacity as integer), cast(:rate_per_s as numeric), false, null, 'drill')
), scheduled as (
    insert into schedule (id, concert_id, starts_at)
    select :id * 100 + nth, :id, now() + interval '60 days' + nth * interval '1 day'
    from generate_series(1, cast(:schedules as integer)) as nth
    returning id
), counted as (
    insert into schedule_sales (schedule_id, concert_id, seats_total)
    select id, :id, cast(:seats as integer) from scheduled
)
insert into seat (schedule_id, number, section, row_label, price)
select scheduled.id, number, 'A', ((number - 1) / 10 + 1)::text, 110000
from scheduled, generate_series(1, cast(:seats as integer)) as number
