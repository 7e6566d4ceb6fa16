-- position: where a person is who holds a token, and let in whoever may come in.
--
-- ARGV  5 person  6 jitter, 0..1  7 place in the token, us  8 epoch in the token
-- Answers  REBUILD, RESTORING, ADMITTED, WAITING, OVER, SOLD_OUT, CLOSED
-- Safe to run twice: it moves nobody who is where the token says; a claim is made once and then read.

local gate = read_gate()
if not gate then return rebuild() end
local now = clock_us()
local person, jitter, place = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])

if tonumber(ARGV[8]) ~= gate.epoch then return { 'OVER', 'epoch' } end
expire_leases(gate, now, person)
local over, reason = read_over(person)
if over and place <= over then return { 'OVER', reason } end

local pass = read_pass(person)
if not pass then
  local waiting = tonumber(redis.call('ZSCORE', WAITING, person) or false)
  if gate.state ~= 'open' then
    if waiting then redis.call('ZADD', SEEN, text(now + (2 * CLOSED_RETRY_S + 10) * SECOND), person) end
    return { 'CLOSED', gate.message }
  end
  if gate.sold_out == 1 then return { 'SOLD_OUT', gate.epoch, place } end
  if not waiting or place < waiting then
    -- Passed over, or forgotten by Redis: the signed place is theirs. It also wins over a later one that they got by
    -- joining anew while they were forgotten.
    return_to_line(gate, person, place)
  else
    place = waiting
  end
end

return admit_and_answer(gate, person, place, pass, now, 0, jitter)
