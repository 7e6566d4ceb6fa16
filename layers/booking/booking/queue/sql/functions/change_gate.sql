-- Change one setting of a concert's gate while it runs: appends the settings then in force to gate_change.
--
-- p_action is capacity | rate | message (with p_value as text), pause | resume | open | close | restart | draw.
--   open     opens a closed line again; a line that is open before its sale is: the sale opens, one second from now (so
--            that the line's clock is certainly behind that moment, which parts the drawn from those who come later)
--   restart  begins a new epoch: older tokens are over, who is inside stays until their pass is over
--   draw     before its sale opens: the line collects people until then, and the seed p_value draws their order; a draw
--            that there is already keeps its seed; not in an epoch that has let people in: their order was another
-- Answers JSON text: {"settings": line_settings(), "sale_opened": whether this opened the sale}, {"refused": "sale-open"} for
-- a draw that comes too late, or null when there is no such concert.
create or replace function change_gate(
    p_concert_id bigint,
    p_action text,
    p_value text,
    p_changed_by text,
    p_reason text
) returns text
language plpgsql as $$
declare
    v_gate gate_change;
    v_opens_at timestamptz;
    v_mode text;
    v_sale_opened boolean := false;
begin
    perform pg_advisory_xact_lock(hashtextextended('line ' || p_concert_id, 0));
    select sales_open_at, line_mode into v_opens_at, v_mode from concert where id = p_concert_id;
    if not found then
        return null;
    end if;

    v_gate := gate_in_force(p_concert_id);
    case p_action
        when 'capacity' then v_gate.capacity := p_value::integer;
        when 'rate' then v_gate.rate_per_s := p_value::numeric;
        when 'message' then v_gate.message := nullif(p_value, '');
        when 'pause' then v_gate.paused := true;
        when 'resume' then v_gate.paused := false;
        when 'close' then v_gate.state := 'closed';
        when 'restart' then v_gate.epoch := v_gate.epoch + 1;
        when 'open' then
            v_sale_opened := v_gate.state = 'open' and v_opens_at > clock_timestamp() + interval '1 s';
            v_gate.state := 'open';
            if v_sale_opened then
                update concert set sales_open_at = clock_timestamp() + interval '1 s' where id = p_concert_id;
            end if;
        when 'draw' then
            if v_mode = 'fifo' then
                -- The line's clock may be a little ahead.
                if v_opens_at < clock_timestamp() + interval '1 s'
                   or exists (select from admission where concert_id = p_concert_id and epoch = v_gate.epoch) then
                    return json_build_object('refused', 'sale-open');
                end if;
                update concert set line_mode = 'draw', draw_seed = p_value where id = p_concert_id;
            end if;
    end case;

    insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, message, action, reason, changed_by)
    values (p_concert_id, v_gate.epoch, v_gate.state, v_gate.capacity, v_gate.rate_per_s, v_gate.paused,
            v_gate.message, p_action, p_reason, p_changed_by);
    return json_build_object('settings', line_settings(p_concert_id), 'sale_opened', v_sale_opened);
end $$;
