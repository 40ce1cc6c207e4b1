-- Deletes a consumer and its parked events.
-- KEYS    positions of all consumers (hash) | its parked positions (sorted set) | its parked events (hash) | positions to deliver again (set)
-- ARGV    name
-- returns 1 if it existed, else 0
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
return redis.call('HDEL', KEYS[1], ARGV[1])
