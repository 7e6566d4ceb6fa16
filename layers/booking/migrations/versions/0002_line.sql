-- The waiting line's rules: who changed a gate and how, the settings under which each person was let in, the order in
-- which turns ended, and the draw.

-- The gate ------------------------------------------------------------------------------------------------------------

alter table gate_change
    add column action text not null default 'set' check (action in (
        'set', 'started', 'capacity', 'rate', 'pause', 'resume', 'message', 'open', 'close', 'restart', 'draw')),
    add column changed_by text;                           -- null: the line itself

alter table gate_change disable trigger append_only;
update gate_change set action = 'started' where reason = 'started';
alter table gate_change enable trigger append_only;

create index gate_change_started on gate_change (concert_id) where action = 'started';

-- The record of who was let in ----------------------------------------------------------------------------------------

alter table admission
    add column gate_change_id bigint,                     -- the settings in force when the person was let in
    -- The admission number then current: it says what came before and what after, however clocks differ. Null where the
    -- line did not end the turn, or not yet: it was paid, or Redis lost it.
    add column ended_after bigint;

update admission set gate_change_id = (
    select max(id) from gate_change
    where concert_id = admission.concert_id and changed_at <= admission.admitted_at)
where number is not null;

-- The draw ------------------------------------------------------------------------------------------------------------

alter table concert
    add column line_mode text not null default 'fifo' check (line_mode in ('fifo', 'draw')),
    add column draw_seed text check (draw_seed ~ '^[0-9a-f]{64}$'),      -- hidden until the sale opens
    add constraint draw_has_seed check ((line_mode = 'draw') = (draw_seed is not null));

-- People have been shown the seed's hash: the seed stays. And the moment of the opening parts those who are drawn from
-- those who come later: it stays once it has passed.
create function refuse_other_draw() returns trigger language plpgsql as $$
begin
    raise exception 'the draw of concert % is published: its seed, and once it has opened its opening, stay', old.id
        using errcode = 'restrict_violation';
end $$;
create trigger draw_stays before update of line_mode, draw_seed, sales_open_at on concert
    for each row when (
        old.line_mode = 'draw'
        and (new.line_mode <> 'draw' or new.draw_seed <> old.draw_seed
             or (old.sales_open_at <= clock_timestamp() and new.sales_open_at <> old.sales_open_at)))
    execute function refuse_other_draw();
