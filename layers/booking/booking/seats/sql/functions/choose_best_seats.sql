-- Choose the best free seats of a schedule (of one section, where p_section is given) and lock them. Answers their
-- numbers, rising; fewer than p_count where there are not so many that nobody else is just taking.
--
-- Best is: side by side in one row (numbers that follow each other), as near to the first number as that can be had. The
-- data has the best seats first. Where no row has so many side by side: as few pieces as can be had, the largest first.
--
-- In a hurry (not p_patient) nobody is waited for: seats that somebody else has locked are passed over, so that many who
-- ask for the best at once each get the next best. What it locks may lie in no order, hence it must never wait, and who
-- gets too few gives up the transaction. Patiently the first free seats are taken one by one in number order, as everybody
-- orders their locks, waiting for those who have them: slower, but it overlooks no seat that comes free after all.
create or replace function choose_best_seats(
    p_schedule_id bigint,
    p_count integer,
    p_section text,
    p_at timestamptz,
    p_patient boolean
) returns integer[]
language plpgsql as $$
declare
    v_chosen integer[] := '{}';
    v_size integer := p_count;
    v_first integer;
    v_piece integer[];
    v_passed_over integer[] := '{}';  -- where a piece of this size begins that somebody else has locked in part
begin
    if p_patient then
        select array_agg(number) into v_chosen from (
            select number from seat
            where schedule_id = p_schedule_id and (p_section is null or section = p_section)
              and (state = 'available' or (state = 'held' and held_until <= p_at))
            order by number
            limit p_count
            for update
        ) locked;
        return coalesce(v_chosen, '{}');
    end if;

    while v_size > 0 and cardinality(v_chosen) < p_count loop
        if v_size > p_count - cardinality(v_chosen) then
            v_size := p_count - cardinality(v_chosen);
            v_passed_over := '{}';
        end if;
        -- The first free seat that so many free seats of its row begin with, unless it is locked; then those seats.
        with first_seat as (
            select s.number
            from (
                select number,
                       lead(number, v_size - 1) over by_number = number + v_size - 1
                       and lead(row_label, v_size - 1) over by_number = row_label
                       and lead(section, v_size - 1) over by_number = section as begins_piece
                from seat
                where schedule_id = p_schedule_id and (p_section is null or section = p_section)
                  and (state = 'available' or (state = 'held' and held_until <= p_at))
                  and number <> all (v_chosen)
                window by_number as (order by number)
            ) free
            join seat s on s.schedule_id = p_schedule_id and s.number = free.number
            where free.begins_piece and s.number <> all (v_passed_over)
              and (s.state = 'available' or (s.state = 'held' and s.held_until <= p_at))
            order by s.number
            limit 1
            for update of s skip locked
        ), piece as (
            select s.number
            from first_seat
            join seat s on s.schedule_id = p_schedule_id
                       and s.number between first_seat.number and first_seat.number + v_size - 1
            where s.state = 'available' or (s.state = 'held' and s.held_until <= p_at)
            for update of s skip locked
        )
        select (select number from first_seat), array_agg(number) into v_first, v_piece from piece;
        if v_first is null then
            v_size := v_size - 1;
            v_passed_over := '{}';
        elsif cardinality(v_piece) = v_size then
            v_chosen := v_chosen || v_piece;
        else
            v_passed_over := v_passed_over || v_first;
        end if;
    end loop;
    return array(select number from unnest(v_chosen) number order by number);
end $$;
