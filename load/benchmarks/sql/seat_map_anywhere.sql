-- Which of :schedules schedules the next statement reads the map of.
\set nth random(0, :schedules - 1)
\set schedule_id 100 * (1 + :nth / 100) + 1 + :nth % 100
