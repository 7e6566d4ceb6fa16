-- The one clock of the line: the Redis server's, in microseconds. A file of its own so that tests can bring another.
local function clock_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
