-- How much there was to look at.
select 'reservations', count(*) from reservation
union all
select 'payments', count(*) from payment
union all
select 'ledger entries', count(*) from seat_ledger
union all
select 'events', count(*) from outbox
union all
select 'admissions', count(*) from admission where number is not null
