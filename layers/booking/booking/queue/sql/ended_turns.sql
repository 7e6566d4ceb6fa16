-- (person, pass, reason) of those of :pass_ids whose turn is over. A turn that has just ended may be told to the line a
-- second time: the line ends it once.
select person, pass_id, end_reason
from admission
where pass_id = any(cast(:pass_ids as text[])) and ended_at is not null
