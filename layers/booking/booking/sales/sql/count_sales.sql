-- See functions/count_sales.sql.
select count_sales(cast(:events as jsonb))::text
