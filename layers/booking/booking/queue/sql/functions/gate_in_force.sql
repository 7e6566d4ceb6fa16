-- The settings of a concert's gate: its newest gate_change, or (with a null id) those of a gate that nobody has set.
create or replace function gate_in_force(p_concert_id bigint) returns gate_change
language plpgsql stable as $$
declare
    v_gate gate_change;
begin
    select * into v_gate from gate_change where concert_id = p_concert_id order by id desc limit 1;
    if not found then
        v_gate.concert_id := p_concert_id;
        v_gate.epoch := 1;
        v_gate.state := 'open';
        v_gate.capacity := 1000;
        v_gate.rate_per_s := 200;
        v_gate.paused := false;
    end if;
    return v_gate;
end $$;
