-- The floor of everything that is durable: one row, one commit.
insert into bench_write (note) values ('one row, one commit');
