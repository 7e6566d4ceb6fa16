-- See functions/apply_reservation_event.sql.
select apply_reservation_event(
    cast(:event_id as uuid), :type, cast(:reservation_id as uuid), cast(:seq as integer), cast(:data as jsonb), :ticket_code
)::text
