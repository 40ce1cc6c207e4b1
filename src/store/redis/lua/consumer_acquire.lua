-- Takes the lease of a consumer, if it is free.
-- KEYS    the lease (hash) | the state of the feed (hash)
-- ARGV    lease in ms
-- returns { token }, or { 0, ms until the lease of the holder ends }
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local till = tonumber(redis.call('HGET', KEYS[1], 'until') or '0')
if till > ms then
  return { 0, till - ms }
end
local token = redis.call('HINCRBY', KEYS[2], 'token', 1)
redis.call('HSET', KEYS[1], 'token', token, 'until', string.format('%.0f', ms + ARGV[1]))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return { token }
