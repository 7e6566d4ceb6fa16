-- See functions/issue_tickets.sql.
select issue_tickets(cast(:events as jsonb))::text
