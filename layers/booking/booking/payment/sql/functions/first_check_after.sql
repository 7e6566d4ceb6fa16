-- The request that is about to ask a gateway has this long before others ask as well: longer than step 7 lasts.
create or replace function first_check_after() returns interval
language sql immutable as $$ select interval '5 seconds' $$;
