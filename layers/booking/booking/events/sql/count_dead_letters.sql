-- How many dead letters are in each state.
select state, count(*) from dead_letter group by state
