-- restore_gate: make the gate, after the turns have been put back. From then on the line lives.
--
-- ARGV  5 hold, s: nobody is let in for so long after a loss (0: the line's first start)
--       6 phantoms: how many people a lost Redis may have let in unrecorded; they count as inside for a pass's life
--       from 7, in pairs: fields of the gate and their values
-- Answers  DONE 1 when this call made the gate, DONE 0 when there was one
-- Safe to run twice, and by two handlers at once: it does nothing once there is a gate.

if redis.call('EXISTS', GATE) == 1 then return { 'DONE', 0 } end
local now = clock_us()
redis.call('HSET', GATE, unpack(ARGV, 7))
local gate = read_gate()

-- Keys may have outlived the gate: no place is ever given out twice. Places and numbers come from the clock: all papers
-- given out so far have earlier places, and whoever was let in unrecorded has a smaller number than who returns from now on.
local last = redis.call('ZREVRANGE', WAITING, 0, 0, 'WITHSCORES')
change(gate, 'last_place', math.max(gate.last_place, now, tonumber(last[2] or 0)))
change(gate, 'number', math.max(gate.number, now))

local room = math.max(0, gate.capacity - redis.call('ZCARD', INSIDE))
for i = 1, math.min(tonumber(ARGV[6]), room) do
  redis.call('ZADD', INSIDE, text(now + PASS_LIFE_S * SECOND), 'phantom:' .. i)
end
local hold_us = tonumber(ARGV[5]) * SECOND
change(gate, 'hold_us', hold_us == 0 and 0 or now + hold_us)
change(gate, 'tokens', hold_us == 0 and math.max(1, gate.rate) or 0)
change(gate, 'tokens_us', now + hold_us)
write_gate(gate)
redis.call('DEL', RESTORING)
return { 'DONE', 1 }
