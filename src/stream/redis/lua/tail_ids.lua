-- Returns the ids of the last entries of retained topics: where a new subscription starts.
-- KEYS    the retained topics (set)
-- ARGV    prefix of the keys of their streams | a topic, or '' for all
-- returns { topic, last id, ... }, without topics that are empty
local topics = ARGV[2] ~= '' and { ARGV[2] } or redis.call('SMEMBERS', KEYS[1])
local found = {}
for _, topic in ipairs(topics) do
  local last = redis.call('XREVRANGE', ARGV[1] .. topic, '+', '-', 'COUNT', 1)[1]
  if last then
    found[#found + 1] = topic
    found[#found + 1] = last[1]
  end
end
return found
