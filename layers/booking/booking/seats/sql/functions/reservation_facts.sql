-- What every event says of its reservation.
create or replace function reservation_facts(p_reservation reservation) returns jsonb
language sql stable as $$
    select jsonb_build_object(
        'reservation_id', p_reservation.id,
        'concert_id', p_reservation.concert_id,
        'schedule_id', p_reservation.schedule_id,
        'person', p_reservation.person,
        'seats', to_jsonb(p_reservation.seats),
        'total', p_reservation.total,
        'currency', p_reservation.currency)
$$;
