-- Stores a change of a consumer, for the holder of its lease.
-- KEYS    the lease (hash) | positions of all consumers (hash) | its parked positions (sorted set) | its parked events (hash) |
--         positions to deliver again (set)
-- ARGV    token | name | position or '' | how many to park | position, number, JSON for each of those |
--         positions to unpark ...
-- returns 1, or 0 where it does not hold the lease
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then
  return 0
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
else
  redis.call('HSETNX', KEYS[2], ARGV[2], '')
end
local first = 5 + 3 * ARGV[4]
for i = 5, first - 1, 3 do
  redis.call('ZADD', KEYS[3], ARGV[i + 1], ARGV[i])
  redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 2])
  redis.call('SREM', KEYS[5], ARGV[i])
end
for i = first, #ARGV do
  redis.call('ZREM', KEYS[3], ARGV[i])
  redis.call('HDEL', KEYS[4], ARGV[i])
  redis.call('SREM', KEYS[5], ARGV[i])
end
return 1
