-- Keeps wrk at a modest rate (DELAY_MS between requests of a connection) and prints its result as one JSON line.
local pause = tonumber(os.getenv("DELAY_MS") or "20")

function delay()
  return pause
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"ok":%d,"failed":%d,"refused":%d,"broken":%d,"timeout":%d,"status":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests - e.status, e.connect + e.read + e.write + e.timeout + e.status,
    e.connect, e.read + e.write, e.timeout, e.status,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
