-- Appends an event to a subject, if the subject ends as expected, adds it to the feed and announces it.
-- KEYS    the subject (stream) | the last id it had when it was deleted (hash) | the feed (stream) | its state (hash)
-- ARGV    expected last id, 'empty', or '' for anything | MAXLEN or '' | '~' or '=' | channel of the announcement |
--         MAXLEN of the feed | type of the event | field, text, ...
-- returns the new id, or { last id or '' } where the subject does not end as expected
if ARGV[1] ~= '' then
  local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  local last = tail and tail[1] or ''
  if last ~= (ARGV[1] == 'empty' and '' or ARGV[1]) then
    return { last }
  end
end
local id = '*'
local floor = redis.call('HGET', KEYS[2], 'last')
if floor and redis.call('EXISTS', KEYS[1]) == 0 then
  local ms, seq = string.match(floor, '^(%d+)-(%d+)$')
  local now = redis.call('TIME')
  if now[1] * 1000 + math.floor(now[2] / 1000) <= tonumber(ms) then
    id = ms .. '-' .. string.format('%.0f', seq + 1)
  end
end
local add = { 'XADD', KEYS[1] }
if ARGV[2] ~= '' then
  add[3], add[4], add[5] = 'MAXLEN', ARGV[3], ARGV[2]
end
add[#add + 1] = id
for i = 7, #ARGV do
  add[#add + 1] = ARGV[i]
end
id = redis.call(unpack(add))
feed_add(KEYS[3], KEYS[4], ARGV[5], ARGV[4], KEYS[1], id, ARGV[6])
return id
