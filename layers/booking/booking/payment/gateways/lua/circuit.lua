-- What the functions of the circuits share: the head of their library, which runs once, when it is loaded.
--
-- KEYS  1 the circuit, a HASH; it is there while the circuit is open:
--         probe_from   when somebody may ask the firm whether it is back
--         prober       who does so now, or did last, and failed or died
--         probe_ends   when another may try in their place
-- All moments are this server's clock, Unix time in milliseconds. Each function answers
-- {1 if it has changed the circuit, 1 if it is open, ms to probe_from, prober or '', ms to probe_ends}.
-- Each is safe to run twice: the second run finds what the first has done.

local now_ms

local function take_arguments()
  local time = redis.call('TIME')
  now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A moment that is over is now.
local function from_now(moment_ms)
  return math.max(0, (tonumber(moment_ms) or 0) - now_ms)
end

local function told(changed)
  local found = redis.call('HMGET', KEYS[1], 'probe_from', 'prober', 'probe_ends')
  if not found[1] then
    return {changed, 0, 0, '', 0}
  end
  return {changed, 1, from_now(found[1]), found[2] or '', from_now(found[3])}
end

local function open(open_ms, kept_ms)
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'probe_from', string.format('%d', now_ms + open_ms))
  redis.call('PEXPIRE', KEYS[1], kept_ms)
end
