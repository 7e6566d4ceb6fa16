-- restore_gate: make the gate, after the turns have been put back. From then on the line lives.
--
-- ARGV  5 hold, s: nobody is let in for so long after a loss (0: the line's first start); in a draw that is about to open or
--         has just, until all are back
--       6 phantoms: how many people a lost Redis may have let in unrecorded; they count as inside for a pass's life
--       from 7, in pairs: fields of the gate and their values
-- Answers  DONE 1 when this call made the gate, DONE 0 when there was one
-- Safe to run twice, and by two handlers at once: it does nothing once there is a gate.

if redis.call('EXISTS', GATE) == 1 then return { 'DONE', 0 } end
local now = clock_us()
redis.call('HSET', GATE, 'version', new_version(now), unpack(ARGV, 7))
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
local hold_us, held_until_us = tonumber(ARGV[5]) * SECOND, now
if hold_us > 0 then
  held_until_us = now + hold_us
  if gate.seed ~= '' and now >= gate.opens_us - 2 * INTERVAL_MAX_S * SECOND then
    held_until_us = math.max(held_until_us, all_collected_back_us(gate))
  end
  change(gate, 'hold_us', held_until_us)
end
change(gate, 'tokens', hold_us == 0 and math.max(1, gate.rate) or 0)
change(gate, 'tokens_us', held_until_us)
write_gate(gate, now)
keep_line()
redis.call('DEL', RESTORING)
return { 'DONE', 1 }
