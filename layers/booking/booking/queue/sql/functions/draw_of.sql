-- What people are shown of a concert's draw: the hash of its seed (SHA-256 of the seed as text) and, once the sale has
-- opened, the seed; null when it has none.
create or replace function draw_of(p_concert concert) returns json language sql stable as $$
    select json_build_object(
        'seed_hash', encode(sha256(convert_to(p_concert.draw_seed, 'UTF8')), 'hex'),
        'seed', case when p_concert.sales_open_at <= clock_timestamp() then p_concert.draw_seed end)
    where p_concert.line_mode = 'draw'
$$;
