-- The floor of every statement: one trip.
select 1;
