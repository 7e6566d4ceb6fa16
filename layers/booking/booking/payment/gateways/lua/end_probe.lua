-- The probe has ended. It decides nothing where another has been begun in its place, or somebody else's has ended.
-- ARGV  1 who   2 0: the firm is back; else for how long to keep everybody away again, in milliseconds
--       3 after how long without a change the circuit is forgotten
if redis.call('HGET', KEYS[1], 'prober') ~= ARGV[1] then
  return told(0)
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  open(tonumber(ARGV[2]), ARGV[3])
end
return told(1)
