-- join: give a person a place in the line, and let in whoever may come in, which may be that person.
--
-- ARGV  5 person  6 jitter, 0..1
-- Answers  REBUILD, RESTORING, ADMITTED, WAITING (created 1: a new place, 0: the place they had), COLLECTED, SOLD_OUT,
--          CLOSED, NOT_OPEN
-- Safe to run twice: the second run finds the person waiting or inside and answers the same place, with created 0.

local gate = read_gate()
if not gate then return rebuild() end
local now = clock_us()
local person, jitter = ARGV[5], tonumber(ARGV[6])

expire_leases(gate, now, person)
local created, place, pass = 0, nil, read_pass(person)
if not pass then
  if gate.state ~= 'open' then return answer_closed(gate, person, now, jitter) end
  if now < gate.opens_us then
    if gate.seed == '' then return { 'NOT_OPEN', gate.opens_us } end
    place = next_place(gate, now)
    -- Who stands there by the clock, as the draw came later, is drawn like everybody.
    created = redis.call('ZADD', WAITING, text(place_in_line(gate, person, place)), person)
    return answer_collected(gate, person, place, now, created, jitter)
  end
  local away = tonumber(redis.call('ZSCORE', AWAY, person) or false)
  if gate.sold_out == 1 then
    place = tonumber(redis.call('ZSCORE', WAITING, person) or false) or away or next_place(gate, now)
    local reply = { 'SOLD_OUT', gate.epoch, place_on_paper(gate, place) }
    write_gate(gate, now)
    return reply
  end
  if away then
    place = away
    return_to_line(gate, person, place)
  else
    -- Most who join are new: adding them at once saves asking first whether they are there.
    created = redis.call('ZADD', WAITING, 'NX', text(fresh_place(gate, now)), person)
    place = created == 1 and next_place(gate, now) or tonumber(redis.call('ZSCORE', WAITING, person))
  end
end

return admit_and_answer(gate, person, place, pass, now, created, jitter)
