-- Stores that parked events of a consumer are to be delivered again.
-- KEYS    positions of all consumers (hash) | its parked positions (sorted set) | positions to deliver again (set)
-- ARGV    name | 1 for all | positions ...
-- returns their number, or -1 where there is no such consumer
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return -1
end
local count = 0
if ARGV[2] == '1' then
  for _, position in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    redis.call('SADD', KEYS[3], position)
    count = count + 1
  end
  return count
end
for i = 3, #ARGV do
  if redis.call('ZSCORE', KEYS[2], ARGV[i]) then
    redis.call('SADD', KEYS[3], ARGV[i])
    count = count + 1
  end
end
return count
