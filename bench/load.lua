-- What wrk runs: wrk ... -s load.lua URL -- METHOD BODY_BYTES
-- The request is made once and sent as it is, so that the script costs the load nothing.

function init(words)
  wrk.method = words[1]
  if tonumber(words[2]) > 0 then
    wrk.body = string.rep("0123456789abcdef", tonumber(words[2]) / 16)
  end
end

-- Latencies and the duration are in microseconds.
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "duration": %d, "p50": %d, "p99": %d, "max": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
