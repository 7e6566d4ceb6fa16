-- poll_times: what people with so many ahead of them would be told, by the line's own rule and a gate that is not full.
--
-- ARGV  from 5, in threes: how many are ahead, how many wait in all, jitter 0..1
-- Answers  the poll times, ms
-- Safe to run twice: it only reads.

local gate = read_gate()
local times = {}
for i = 5, #ARGV, 3 do
  local ahead, total = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  times[#times + 1] = poll_interval_ms(gate, ahead, total, (ahead + 1) / gate.rate, tonumber(ARGV[i + 2]))
end
return times
