-- Become the one who asks the firm whether it is back: if it is time, and nobody else is at it.
-- ARGV  1 who   2 how long a probe lasts at most, in milliseconds
local found = redis.call('HMGET', KEYS[1], 'probe_from', 'prober', 'probe_ends')
if not found[1] or from_now(found[1]) > 0 then
  return told(0)
end
if found[2] and found[2] ~= ARGV[1] and from_now(found[3]) > 0 then
  return told(0)
end
redis.call('HSET', KEYS[1], 'prober', ARGV[1], 'probe_ends', string.format('%d', now_ms + ARGV[2]))
return told(1)
