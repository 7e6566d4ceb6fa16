-- I4: at no admission were more people inside than the capacity then in force. Each admission names the gate change under
-- which it happened; who counts as inside is who was let in before and whose turn had not ended by then.
--
-- Before and after go by admission numbers: an ended turn has the number that was current at its end, so no clock is
-- compared with another. A turn that the line did not end itself (paid while Redis was away; forgotten by Redis) has no
-- such number; then its end's time stands for one, as numbers come from a clock. People whom a lost Redis had let in
-- unrecorded are not seen here: the rebuilt line counts as many as there can be.
with steps as (
    select concert_id, number as at, 1 as step, pass_id, gate_change_id from admission where number is not null
    union all
    select concert_id, greatest(number, coalesce(ended_after, microseconds(least(ended_at, expires_at)) - 1)),
           -1, null, null
    from admission where number is not null
), counts as (
    -- An end follows the admission whose number it has.
    select *, sum(step) over (partition by concert_id order by at, step desc rows unbounded preceding) as inside
    from steps
)
select format('admission %s', c.pass_id),
       case when g.id is null then format('names gate change %s, which concert %s does not have',
                                          coalesce(c.gate_change_id::text, 'none'), c.concert_id)
            else format('made %s inside concert %s; gate change %s allows %s', c.inside, c.concert_id, g.id, g.capacity)
       end
from counts c left join gate_change g on g.id = c.gate_change_id and g.concert_id = c.concert_id
where c.step = 1 and (g.id is null or c.inside > g.capacity)
order by c.concert_id, c.at
