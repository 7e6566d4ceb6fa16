-- How long to leave a payment in peace that has been asked for p_checks times: exponential, capped, with jitter.
create or replace function check_backoff(p_checks integer, p_s_max integer) returns interval
language sql volatile as $$
    select make_interval(secs => least(p_s_max, power(2, least(p_checks, 10))) * (0.5 + random() / 2))
$$;
