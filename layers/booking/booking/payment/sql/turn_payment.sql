-- See functions/turn_payment.sql.
select turn_payment(cast(:payment_id as uuid), :left_gateway, :to_gateway, :correlation_id)::text
