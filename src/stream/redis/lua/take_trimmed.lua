-- Takes the number of messages that a group missed by trimming.
-- KEYS    how many messages each group missed (hash)
-- ARGV    group
-- returns the number
local missed = redis.call('HGET', KEYS[1], ARGV[1])
if not missed then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
return tonumber(missed)
