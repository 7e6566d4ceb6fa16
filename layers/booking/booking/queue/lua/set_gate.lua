-- set_gate: give the gate the settings that Postgres has, and be the backstop: end lapsed turns, take absent people out
-- of the line wherever they stand (so that positions and totals count people who are there; at the head every call does
-- it), and let in whoever may come in. An operator's change is told to the line by this script at once; the background
-- loop repeats the newest settings each second, so a change whose teller died gets through all the same.
--
-- ARGV  5 the settings' change id  6 their epoch, then in pairs the other settings: fields of the gate and their values
-- Answers  DONE, 1 when these are the settings in force now (0: newer ones are, or there is no gate: a restored one
--          reads them from Postgres), how many were let in, and for how many s nobody is, as people are waited for
-- Safe to run twice, and late: settings older than those in force are ignored, and what is due by the clock is done once.

local ABSENT_SWEPT_MAX = 1000

local before = read_gate()
if not before then return { 'DONE', 0, 0, 0 } end
local now = clock_us()

expire_leases(before, now, nil)
write_gate(before, now)
local change_id, epoch = tonumber(ARGV[5]), tonumber(ARGV[6])
local newest = change_id >= before.change_id
if newest then
  -- A new epoch is a new line. Who is inside stays until their turn ends, and counts.
  if epoch > before.epoch then redis.call('UNLINK', WAITING, SEEN, AWAY, RETURNED, OVER) end
  redis.call('HSET', GATE, 'version', new_version(now), 'change_id', change_id, 'epoch', epoch, unpack(ARGV, 7))
end

local gate = read_gate()
-- A place from before the draw is kept for nobody: who comes back is drawn.
if before.seed == '' and gate.seed ~= '' then redis.call('UNLINK', AWAY) end
local is_faster = gate.rate > before.rate or gate.capacity > before.capacity
if is_faster or before.state ~= 'open' and gate.state == 'open' then
  change(gate, 'hold_us', math.max(gate.hold_us, now))
end
local is_held_for_draw = before.hold_us > now and before.hold_us == all_collected_back_us(before)
if is_held_for_draw then change(gate, 'hold_us', all_collected_back_us(gate)) end
if gate.seed ~= '' and now < before.opens_us and gate.opens_us < before.opens_us then await_collected(gate) end
-- Before the opening nobody has to be there, and while the line is held people are coming back.
if now >= gate.opens_us and now >= gate.hold_us then
  local absent = redis.call('ZRANGEBYSCORE', SEEN, '-inf', '(' .. text(now - GRACE_US), 'LIMIT', 0, ABSENT_SWEPT_MAX)
  for _, person in ipairs(absent) do
    local place = redis.call('ZSCORE', WAITING, person)
    if place then pass_over(person, place) else redis.call('ZREM', SEEN, person) end
  end
end
local admitted = let_in(gate, now, nil)
write_gate(gate, now)
keep_line()
return { 'DONE', newest and 1 or 0, admitted, math.ceil(math.max(0, gate.hold_us - now) / SECOND) }
