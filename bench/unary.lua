-- wrk sends the bytes of the file named after `--`, over and over, and ends with one line of JSON.

local raw

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   raw = file:read("*a")
   file:close()
end

function request()
   return raw
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
      summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
