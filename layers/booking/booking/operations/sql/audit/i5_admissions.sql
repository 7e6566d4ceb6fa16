-- I5, the database's side: every admission in the order of its number, line by line (a line is one epoch of a concert).
select concert_id, epoch, pass_id, number, place, coalesce(entered_after, 0)
from admission
where number is not null
order by concert_id, epoch, number
