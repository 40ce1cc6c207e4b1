-- Deletes an entry of an index. A metadata key of another type is kept.
-- KEYS    the index (sorted set) | metadata of the entry (hash)
-- ARGV    id
-- returns 1 if it existed, else 0
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
if redis.call('TYPE', KEYS[2]).ok == 'hash' then
  redis.call('UNLINK', KEYS[2])
end
return 1
