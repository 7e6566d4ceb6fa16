-- show_gate: the line as it stands, for people who operate it. Changes nothing.
--
-- ARGV  none of its own
-- Answers  DONE and, in pairs, what there is to know: counts, times in us, rates as text; DONE alone without a gate
-- Safe to run twice: it only reads.

local gate = read_gate()
if not gate then return { 'DONE' } end
local now = clock_us()
local waiting, inside = redis.call('ZCARD', WAITING), redis.call('ZCARD', INSIDE)
local admitting, eta_s = lets_people_in(gate, now), -1
if gate.rate > 0 and gate.capacity > 0 and gate.paused == 0 then
  eta_s = math.ceil(expected_s(gate, now, waiting - 1, math.max(0, gate.capacity - inside)) + closed_s(gate, now))
end
local measured = gate.measured == 2 or gate.speed_weight >= 1
return {
  'DONE',
  'change_id', gate.change_id,
  'epoch', gate.epoch,
  'admitting', admitting and 1 or 0,
  'held_s', math.ceil(math.max(0, gate.hold_us - now) / SECOND),
  'waiting', waiting,
  'absent', redis.call('ZCARD', AWAY) + redis.call('ZCOUNT', SEEN, '-inf', '(' .. text(now - GRACE_US)),
  'inside', inside,
  'passes', redis.call('HLEN', PASSES),
  'full', inside >= gate.capacity and 1 or 0,
  'full_pace', measured and string.format('%.2f', full_pace(gate, now)) or '',
  'eta_s', waiting > 0 and eta_s or 0,
  'last_place', gate.last_place,
  'last_number', gate.number,
}
