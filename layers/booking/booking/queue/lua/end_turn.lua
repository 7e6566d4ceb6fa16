-- end_turn: end the turn that one pass stands for (it was paid), and let in the next.
--
-- ARGV  5 person  6 pass id  7 reason: paid | left
-- Answers  DONE 1 when the turn ended now, DONE 0 when it was over, forgotten, or there is no gate: Postgres has the
--          end of the turn and a restored line reads it there.
-- Safe to run twice: the second run finds no such pass inside.

local gate = read_gate()
if not gate then return { 'DONE', 0 } end
local now = clock_us()
local person = ARGV[5]

expire_leases(gate, now, person)
local pass = read_pass(person)
local ended = pass ~= nil and pass.id == ARGV[6]
if ended then end_turn_inside(gate, person, ARGV[7], now) end
let_in(gate, now, nil)
write_gate(gate, now)
return { 'DONE', ended and 1 or 0 }
