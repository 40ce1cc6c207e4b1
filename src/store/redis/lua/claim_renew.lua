-- Renews or ends the lease of a holder, or removes holders whose leases have ended.
-- KEYS    the holders (sorted set: Unix ms at which the lease ends)
-- ARGV    holder and lease in ms, which is 0 to end it, or '' and the holders to remove ...
-- returns the holders whose leases have ended
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], ARGV[2] == '0' and '0' or string.format('%.0f', ms + ARGV[2]), ARGV[1])
else
  for i = 2, #ARGV do
    local till = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if till and tonumber(till) < ms then
      redis.call('ZREM', KEYS[1], ARGV[i])
    end
  end
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', ms))
