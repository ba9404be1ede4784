-- wrk sends the requests of the file named after `--`, one after the other, over and over, and ends with one line of
-- JSON. In the file each request stands after a line with its length in bytes.

local requests, turn = {}, 0

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   local length = file:read("*n", 1)
   while length do
      requests[#requests + 1] = file:read(length)
      length = file:read("*n", 1)
   end
   file:close()
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
