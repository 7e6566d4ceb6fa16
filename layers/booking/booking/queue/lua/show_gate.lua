-- show_gate: the line as it stands, for people who operate it. Changes nothing.
--
-- ARGV  none of its own
-- Answers  DONE and, in pairs, what there is to know: counts, times in us, rates as text; DONE alone without a gate
-- Safe to run twice: it only reads.

local gate = read_gate()
if not gate then return { 'DONE' } end
local now = clock_us()
local waiting = redis.call('ZCARD', WAITING)
local overdue = redis.call('ZCOUNT', SEEN, '-inf', '(' .. text(now))

settle_speed(gate, now)
local speed = gate.speed_weight >= 1 and string.format('%.2f', gate.speed_sum / gate.speed_weight) or ''
return {
  'DONE',
  'change_id', gate.change_id,
  'epoch', gate.epoch,
  'admitting', lets_people_in(gate, now) and 1 or 0,
  'held_s', math.ceil(math.max(0, gate.hold_us - now) / SECOND),
  'waiting', waiting,
  'absent', redis.call('ZCARD', AWAY) + overdue,
  'inside', redis.call('ZCARD', INSIDE),
  'passes', redis.call('HLEN', PASSES),
  'speed_per_s', speed,
  'eta_s', waiting > 0 and eta_s(gate, now, waiting - 1) or 0,
  'last_place', gate.last_place,
  'last_number', gate.number,
}
