-- Messages into a thousand conversations; prints its own figures, because wrk's are for people.
local sent, run = 0, os.time()
request = function()
  sent = sent + 1
  local body = string.format('{"conversation_id":"b%d-%d","content":"A message of usual length, the %dth of them."}',
    run, sent % 1000, sent)
  return wrk.format("POST", "/v1/messages",
    {["Authorization"] = "Bearer " .. os.getenv("TOKEN"), ["Content-Type"] = "application/json"}, body)
end
done = function(summary, latency, _)
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout
  io.write(string.format("FIGURES %f %f %f %f %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, errors))
end
