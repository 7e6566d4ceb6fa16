-- A consumer begins a batch. What was begun here and has not ended is counted.
--
-- KEYS: unended, of the consumer
-- ARGV: how long it is kept (seconds), then the start of each partition's part of the batch
-- Answers how often each was begun and has not ended, this time included.
local times = {}
for i = 2, #ARGV do
  times[i - 1] = redis.call('HINCRBY', KEYS[1], ARGV[i], 1)
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return times
