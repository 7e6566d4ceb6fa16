-- Write a domain event into the outbox, in the caller's transaction. The caller holds the reservation's row lock (or
-- has just created it), so that seq is dense and in the order of the commits of one reservation.
create or replace function emit_event(
    p_reservation_id uuid,
    p_type text,
    p_data jsonb,
    p_correlation_id text,
    p_at timestamptz
) returns void
language plpgsql as $$
declare
    v_seq integer;
begin
    update reservation set event_seq = event_seq + 1 where id = p_reservation_id returning event_seq into v_seq;
    insert into outbox (type, reservation_id, seq, occurred_at, correlation_id, data)
    values (p_type, p_reservation_id, v_seq, p_at, p_correlation_id, p_data);
end $$;
