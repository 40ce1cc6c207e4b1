-- Returns consumers.
-- KEYS    positions of all consumers (hash)
-- ARGV    beginning of the keys of parked positions (sorted sets) | name, or '' for all
-- returns { name, position or '', number of parked events, ... }
local found
if ARGV[2] ~= '' then
  local position = redis.call('HGET', KEYS[1], ARGV[2])
  found = position and { ARGV[2], position } or {}
else
  found = redis.call('HGETALL', KEYS[1])
end
local consumers = {}
for i = 1, #found, 2 do
  consumers[#consumers + 1] = found[i]
  consumers[#consumers + 1] = found[i + 1]
  consumers[#consumers + 1] = redis.call('ZCARD', ARGV[1] .. found[i])
end
return consumers
