-- Adds or replaces an entry of an index.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id | score | field, text, ...
-- returns 1; NVENT_TYPE where either key holds something else
local is_entry = redis.call('ZSCORE', KEYS[1], ARGV[1])
local kind = redis.call('TYPE', KEYS[2]).ok
-- A hash that belongs to no entry is replaced only if it is what an interrupted writer left: metadata has a version.
if kind ~= 'none' and (kind ~= 'hash' or not is_entry and redis.call('HEXISTS', KEYS[2], 'version') == 0) then
  return redis.error_reply('NVENT_TYPE the key of the metadata, <index>:meta:<id>, holds a ' .. kind
    .. ' that is no metadata: use another id')
end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('UNLINK', KEYS[2])
for first = 3, #ARGV, 2000 do
  redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 1999, #ARGV)))
end
return 1
