-- The second of step 7's two trips; see functions/settle_payment.sql.
select settle_payment(
    cast(:payment_id as uuid), :gateway, :outcome, :detail, cast(:hold_after_decline_s as integer), :correlation_id,
    :turn_to, cast(:turn_s_min as integer), cast(:deadline_s as integer)
)::text
