-- Too many failures in a row: keep everybody away. One that is open stays as it is: who comes late with a failure knows
-- nothing of the probe.
-- ARGV  1 for how long, in milliseconds   2 after how long without a change it is forgotten
if redis.call('EXISTS', KEYS[1]) == 1 then
  return told(0)
end
open(tonumber(ARGV[1]), ARGV[2])
return told(1)
