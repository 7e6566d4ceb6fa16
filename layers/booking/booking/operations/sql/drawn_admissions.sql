-- Who was let in by a draw, in the order of their admission: places below 2 ^ 50 come from a draw, later ones from a clock.
select person, pass_id, number, place, coalesce(entered_after, 0)
from admission
where concert_id = cast(:concert_id as bigint) and number is not null and place < 1125899906842624
order by epoch, number
