-- Adds an event that has an id to a subject, unless it is there, adds it to the feed and announces it.
-- KEYS    the subject (stream) | the feed (stream) | its state (hash)
-- ARGV    id | MAXLEN of the feed | channel of the announcement | type of the event | field, text, ...
-- returns 1, 0 where the event was there, or the last id of the subject where that is greater
local ms, seq = string.match(ARGV[1], '^(%d+)-(%d+)$')
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1], 'COUNT', 1) > 0 then
  return 0
end
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if tail then
  local last_ms, last_seq = string.match(tail[1], '^(%d+)-(%d+)$')
  if tonumber(last_ms) > tonumber(ms) or tonumber(last_ms) == tonumber(ms) and tonumber(last_seq) > tonumber(seq) then
    return tail[1]
  end
end
local add = { 'XADD', KEYS[1], ARGV[1] }
for i = 5, #ARGV do
  add[#add + 1] = ARGV[i]
end
redis.call(unpack(add))
feed_add(KEYS[2], KEYS[3], ARGV[2], ARGV[3], KEYS[1], ARGV[1], ARGV[4])
return 1
