-- Returns parked events of a consumer in the order of the feed.
-- KEYS    its parked positions (sorted set) | its parked events (hash)
-- ARGV    number after which to begin | greatest number of events | how many bytes are enough
-- returns { position, JSON, ... }
local found, bytes = {}, 0
for _, position in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[2])) do
  local event = redis.call('HGET', KEYS[2], position)
  if event then
    found[#found + 1] = position
    found[#found + 1] = event
    bytes = bytes + #event
  end
  if bytes > tonumber(ARGV[3]) then
    break
  end
end
return found
