-- restore_turns: put back a part of what Postgres remembers of people's turns, before there is a gate.
--
-- ARGV  from 5, six for each turn, oldest turn first:
--       person  state: inside | left | paid | lapsed  pass id  number, us  place, us  expires, us ('+' if claimed)
-- Answers  DONE
-- Does nothing once there is a gate: the line lives, and what Postgres said a moment ago may no longer be so.
-- Safe to run twice: it sets each person's last known state, whatever an unfinished restore has left behind.
-- A pass that is not known to be claimed may have been in the moment that was lost: it lives as long as if it had been
-- claimed at the end of its window.

if redis.call('EXISTS', GATE) == 1 then return { 'DONE' } end
local somebody_inside = redis.call('EXISTS', INSIDE) == 1
for i = 5, #ARGV, 6 do
  local person, state, place, expires = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 4]), ARGV[i + 5]
  if state == 'inside' then
    local claimed = string.sub(expires, 1, 1) == '+'
    write_pass(person, { id = ARGV[i + 2], number = tonumber(ARGV[i + 3]), place = place, claimed = claimed })
    local expires_us = tonumber(expires)
    if not claimed then expires_us = expires_us + PASS_LIFE_S * SECOND end
    redis.call('ZADD', INSIDE, text(expires_us), person)
    redis.call('ZREM', WAITING, person)
    redis.call('ZREM', SEEN, person)
    somebody_inside = true
  else
    if somebody_inside then
      redis.call('HDEL', PASSES, person)
      redis.call('ZREM', INSIDE, person)
    end
    if place > (read_over(person) or 0) then redis.call('HSET', OVER, person, text(place) .. ' ' .. state) end
  end
end
return { 'DONE' }
