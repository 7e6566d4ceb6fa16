-- set_sold_out: say whether every seat is confirmed. A refund says 0 again, and the line goes on.
--
-- ARGV  5 sold out: 0 | 1
-- Answers  DONE 1, or DONE 0 when there is no gate (a restored one reads the state of the sale from Postgres)
-- Safe to run twice: it sets a state.

local gate = read_gate()
if not gate then return { 'DONE', 0 } end
local now = clock_us()

expire_leases(gate, now, nil)
change(gate, 'sold_out', tonumber(ARGV[5]))
let_in(gate, now, nil)
write_gate(gate, now)
return { 'DONE', 1 }
