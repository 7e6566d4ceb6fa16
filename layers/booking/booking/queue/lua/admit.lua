-- admit: the backstop. Ends lapsed turns and lets people in when nobody joins or polls; takes absent people out of the
-- line wherever they stand, so that positions and totals count people who are there (at the head every call does it);
-- repeats the state of the sale in case set_sold_out did not get through.
--
-- ARGV  5 sold out: 0 | 1
-- Answers  DONE and how many were let in; without a gate DONE 0: the line is restored when somebody asks for it
-- Safe to run twice: it does what is due by the clock, and the second run finds it done.

local ABSENT_SWEPT_MAX = 1000

local gate = read_gate()
if not gate then return { 'DONE', 0 } end
local now = clock_us()

if gate.sold_out ~= tonumber(ARGV[5]) then change(gate, 'sold_out', tonumber(ARGV[5])) end
expire_leases(gate, now, nil)
local absent = redis.call('ZRANGEBYSCORE', SEEN, '-inf', '(' .. text(now), 'LIMIT', 0, ABSENT_SWEPT_MAX)
for _, person in ipairs(absent) do
  local place = redis.call('ZSCORE', WAITING, person)
  if place then pass_over(person, place) else redis.call('ZREM', SEEN, person) end
end
local admitted = let_in(gate, now, nil)
write_gate(gate)
return { 'DONE', admitted }
