-- These were tried to be sent; :sent of them were.
update notice
set attempts = attempts + 1, sent_at = case when event_id = any (cast(:sent as uuid[])) then clock_timestamp() end
where event_id = any (cast(:tried as uuid[])) and sent_at is null
