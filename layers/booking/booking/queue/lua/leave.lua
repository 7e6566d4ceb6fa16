-- leave: end the turn of a person who holds a token, waiting or inside, and let in the next.
--
-- ARGV  5 person  6 place in the token, us  7 epoch in the token
-- Answers  REBUILD, RESTORING, DONE
-- Safe to run twice: a turn that is over stays over with its first reason, and a newer turn is not touched.

local gate = read_gate()
if not gate then return rebuild() end
local now = clock_us()
local person, place = ARGV[5], tonumber(ARGV[6])

local epoch = tonumber(ARGV[7])
if epoch > gate.epoch then return { 'RESTORING' } end
if epoch < gate.epoch then return { 'DONE' } end
expire_leases(gate, now, person)
local over = read_over(person)
if over and place <= over then return { 'DONE' } end

if read_pass(person) then
  end_turn_inside(gate, person, 'left', now)
else
  redis.call('ZREM', WAITING, person)
  redis.call('ZREM', SEEN, person)
  redis.call('ZREM', AWAY, person)
  redis.call('HDEL', RETURNED, person)
  -- Also for somebody whom Redis has forgotten: else the token would still lead back into the line.
  remember_over(gate, person, place, 'left')
end
let_in(gate, now, nil)
write_gate(gate, now)
return { 'DONE' }
