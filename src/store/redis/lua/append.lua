-- Appends an event to a subject, if the subject ends as expected, adds it to the feed and announces it.
-- KEYS    the subject (stream) | the last id it had when it was deleted (hash) | the feed (stream) | its state (hash)
-- ARGV    expected last id, 'empty', or '' for anything | MAXLEN or '' | '~' or '=' | channel of the announcement |
--         MAXLEN of the feed | type of the event | 'run' for an event of a run, 'end' for its last one, '' for others |
--         greatest length of a run's subject | name of the instance or '' | field, text, ...
-- returns `<id> <position in the feed>`, { last id or '' } where the subject does not end as expected, or { that text, 1 }
--         where a run that is not over was trimmed
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
local max, approx, trimmed = ARGV[2], ARGV[3], false
if max ~= '' and ARGV[7] == 'end' then
  approx = '='
elseif max ~= '' and ARGV[7] == 'run' then
  -- The state of a run is the fold of all its events: while it is not over they are kept, up to a bound.
  local length = redis.call('XLEN', KEYS[1])
  if length >= tonumber(max) then
    local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
    local fields = first and first[2] or {}
    for i = 1, #fields, 2 do
      if fields[i] == 'type' and fields[i + 1] == 'flow.start' then
        trimmed = length >= tonumber(ARGV[8])
        max, approx = trimmed and ARGV[8] or '', '='
      end
    end
  end
end
local add = { 'XADD', KEYS[1] }
if max ~= '' then
  add[3], add[4], add[5] = 'MAXLEN', approx, max
end
add[#add + 1] = id
for i = 10, #ARGV do
  add[#add + 1] = ARGV[i]
end
id = redis.call(unpack(add))
id = id .. ' ' .. feed_add(KEYS[3], KEYS[4], ARGV[5], ARGV[4], KEYS[1], id, ARGV[6], false, ARGV[9])
return trimmed and { id, 1 } or id
