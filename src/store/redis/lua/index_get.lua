-- Returns one entry of an index.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id
-- returns { score, { field, text, ... } }, or nothing
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score then
  return false
end
-- A metadata key of another type is not this entry's: the entry has none.
local fields = redis.pcall('HGETALL', KEYS[2])
return { score, fields.err and {} or fields }
