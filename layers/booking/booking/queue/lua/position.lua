-- position: where a person is who holds a token, and let in whoever may come in.
--
-- ARGV  5 person  6 jitter, 0..1  7 place in the token, us  8 epoch in the token
-- Answers  REBUILD, RESTORING, ADMITTED, WAITING, COLLECTED, OVER, SOLD_OUT, CLOSED
-- Safe to run twice: it moves nobody who is where the token says; a claim is made once and then read.

local gate = read_gate()
if not gate then return rebuild() end
local now = clock_us()
local person, jitter, place = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])

local epoch = tonumber(ARGV[8])
if epoch > gate.epoch then return { 'RESTORING' } end
if epoch < gate.epoch then return { 'OVER', 'epoch' } end
expire_leases(gate, now, person)
-- Most who ask stand in the line at the very place that their token tells: then that turn is neither over nor inside.
local stands_at, pass = tonumber(redis.call('ZSCORE', WAITING, person) or false), nil
if stands_at ~= place then
  local over, reason = read_over(person)
  if over and place <= over then return { 'OVER', reason } end
  pass = read_pass(person)
end

if not pass then
  if gate.sold_out == 1 and gate.state == 'open' then return { 'SOLD_OUT', gate.epoch, place } end
  if place > gate.last_place then change(gate, 'last_place', place) end
  local place_there = place_in_line(gate, person, place)
  if gate.state ~= 'open' then
    -- Whom Redis has forgotten meanwhile stands there before the line opens again, or those who come then would be first.
    if not stands_at then return_to_line(gate, person, place_there) end
    write_gate(gate, now)
    return answer_closed(gate, person, now, jitter)
  end
  if now < gate.opens_us and gate.seed ~= '' then
    if stands_at ~= place_there then redis.call('ZADD', WAITING, text(place_there), person) end
    return answer_collected(gate, person, place, now, 0, jitter)
  end
  if not stands_at or place_there < stands_at then
    -- Passed over, or forgotten by Redis: the signed place is theirs. It also wins over a later one that they got by
    -- joining anew while they were forgotten.
    return_to_line(gate, person, place_there)
    stands_at = place_there
  end
  place = stands_at
end

return admit_and_answer(gate, person, place, pass, now, 0, jitter)
