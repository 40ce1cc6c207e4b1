-- Extends the lease of a consumer, or releases it. A holder that was late keeps it if no other has taken it.
-- KEYS    the lease (hash) | positions to deliver again (set)
-- ARGV    token | lease in ms, or '' to release it | channel of the announcement of a release
-- returns 1, 2 where parked events are to be delivered again, or 0 where another holder has it, or none
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  redis.pcall('PUBLISH', ARGV[3], 'released')
  return 1
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1 + redis.call('EXISTS', KEYS[2])
