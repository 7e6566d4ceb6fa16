-- The second of step 7's two trips; see functions/settle_payment.sql.
select settle_payment(
    cast(:payment_id as uuid), :outcome, :detail, cast(:hold_after_decline_s as integer), :correlation_id
)::text
