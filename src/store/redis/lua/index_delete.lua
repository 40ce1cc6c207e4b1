-- Deletes an entry of an index.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id
-- returns 1 if it was there, else 0
redis.call('DEL', KEYS[2])
return redis.call('ZREM', KEYS[1], ARGV[1])
