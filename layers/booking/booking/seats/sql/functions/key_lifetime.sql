-- For how long the same idempotency key means the same attempt. Constant, so that the planner puts the value in its place.
create or replace function key_lifetime() returns interval
language sql immutable as $$ select interval '24 hours' $$;
