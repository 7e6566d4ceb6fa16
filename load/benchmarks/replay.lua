-- Sends prepared requests one after the other, each thread its own share of them, and prints what came of it as JSON.
--
-- wrk ... -s replay.lua URL -- FILE THREADS [once]
-- FILE holds requests as they go over the wire, each after a line with its length in bytes.
-- A thread that has sent its share begins again; with "once" it stops when all of its share is answered.

local threads = {}
function setup(thread)
  thread:set('index', #threads)
  threads[#threads + 1] = thread
end

function init(args)
  local file = assert(io.open(args[1], 'rb'))
  local step = tonumber(args[2])
  requests, sent, repeated = {}, 0, 0
  local n = 0
  while true do
    local length = file:read('*l')
    if not length then break end
    local request = file:read(tonumber(length))
    if n % step == index then requests[#requests + 1] = request end
    n = n + 1
  end
  file:close()
  if args[3] == 'once' then
    local answered = 0
    function response()
      answered = answered + 1
      if answered == #requests then wrk.thread:stop() end
    end
  end
  -- One request for everybody.
  if #requests == 0 then
    file = assert(io.open(args[1], 'rb'))
    requests[1] = file:read(tonumber(file:read('*l')))
    file:close()
  end
end

function request()
  sent = sent + 1
  if sent > #requests then repeated = repeated + 1 end
  return requests[(sent - 1) % #requests + 1]
end

function done(summary)
  local errors, again = summary.errors, 0
  for _, thread in ipairs(threads) do
    again = again + thread:get('repeated')
  end
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('\n{"requests":%d,"duration_us":%d,"refused":%d,"broken":%d,"repeated":%d}\n',
    summary.requests, summary.duration, errors.status, broken, again))
end
