-- A concert's draw as people are shown it, as JSON text (null for one that has none); no row when there is no such concert.
select title, draw_of(concert)::text from concert where id = cast(:concert_id as bigint)
