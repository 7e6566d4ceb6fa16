-- What emit_event is without an outbox: the reservation still counts its events. For measurements alone.
create or replace function emit_event(
    p_reservation_id uuid,
    p_type text,
    p_data jsonb,
    p_correlation_id text,
    p_at timestamptz
) returns void
language plpgsql as $$
begin
    update reservation set event_seq = event_seq + 1 where id = p_reservation_id;
end $$;
