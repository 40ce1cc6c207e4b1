-- Adds or replaces an entry of an index.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id | score | field, text, ...
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('DEL', KEYS[2])
for first = 3, #ARGV, 2000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 1999, #ARGV)))
end
return 1
