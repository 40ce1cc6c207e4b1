-- Adds events of other writers, such as nvent's own adapters, to the feed: one step of a pass over the keys of the database.
-- Native instances write `ts` as the first field of an event, which is how other writers' events are recognized. A pass
-- looks at events since the beginning of the pass before.
-- KEYS    the feed (stream) | its state (hash) | last adopted id by subject (hash)
-- ARGV    channel | MAXLEN of the feed | name of the instance | its lease in ms | keys to visit |
--         greatest number of events to look at
-- returns { 'idle' (nothing was written since the last pass), 'busy' (another instance does it), 'more', or 'done' }
local feed, state, adopted, channel = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
-- Streams that are no subjects: feeds, and what stream adapters retain and park, of whatever prefix.
local function is_own(key)
  return string.find(key, ':~feed', 1, true) or string.find(key, ':~retained:', 1, true)
    or string.find(key, ':~parked:', 1, true)
end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
-- The number of changes and the time of the last save: the same as after the last pass if nothing was written since.
local function changes(more)
  local info = redis.pcall('INFO', 'persistence')
  if type(info) == 'table' then
    return false
  end
  return (string.match(info, 'rdb_changes_since_last_save:(%d+)') or 0) + more
    .. '/' .. (string.match(info, 'rdb_last_save_time:(%d+)') or '')
end
local from, started, cursor, holder, till, seen =
  unpack(redis.call('HMGET', state, 'from', 'started', 'cursor', 'holder', 'until', 'seen'))
if holder and holder ~= ARGV[3] and tonumber(till) > ms then
  return { 'busy' }
end
if not cursor and seen and changes(0) == seen then
  return { 'idle' }
end
-- Ids carry the server's time; a second covers ids given within one script.
local since = tonumber(from or ms) - 1000
if not cursor then
  cursor, started = '0', string.format('%.0f', ms)
end
local budget, examined = tonumber(ARGV[6]), {}
local page = redis.call('SCAN', cursor, 'COUNT', ARGV[5], 'TYPE', 'stream')
for _, subject in ipairs(page[2]) do
  if budget > 0 and not is_own(subject) then
    local last
    local info = redis.call('XINFO', 'STREAM', subject)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        last = info[i + 1]
      end
    end
    if tonumber(string.match(last, '^%d+')) >= since then
      local done = redis.call('HGET', adopted, subject)
      local after, mark = string.format('%.0f', since), nil
      if done and tonumber(string.match(done, '^%d+')) >= since then
        after = '(' .. done
      end
      local events = redis.call('XRANGE', subject, after, '+', 'COUNT', budget)
      budget = budget - #events
      if #events > 0 then
        examined[#examined + 1] = subject
        examined[#examined + 1] = events[#events][1]
      end
      for _, event in ipairs(events) do
        local fields = event[2]
        -- An id beyond now was given by hand: it would be found again and again.
        if fields[1] ~= 'ts' and tonumber(string.match(event[1], '^%d+')) <= ms then
          local kind
          for i = 1, #fields, 2 do
            if fields[i] == 'type' then
              kind = fields[i + 1]
            end
          end
          -- Without a type it is no event but an entry of another program's stream.
          if kind then
            feed_add(feed, state, ARGV[2], channel, subject, event[1], kind, true)
            mark = event[1]
          end
        end
      end
      if mark then
        redis.call('HSET', adopted, subject, mark)
      end
    end
  end
end
local lease = string.format('%.0f', ms + ARGV[4])
if budget <= 0 then
  -- The same page again, after what is marked.
  for first = 1, #examined, 2000 do
    redis.call('HSET', adopted, unpack(examined, first, math.min(first + 1999, #examined)))
  end
  redis.call('HSET', state, 'cursor', cursor, 'started', started, 'holder', ARGV[3], 'until', lease)
  return { 'more' }
end
if page[1] ~= '0' then
  redis.call('HSET', state, 'cursor', page[1], 'started', started, 'holder', ARGV[3], 'until', lease)
  return { 'more' }
end
-- Marks before the next pass's beginning are not needed any more.
local marks = redis.call('HGETALL', adopted)
for i = 1, #marks, 2 do
  if tonumber(string.match(marks[i + 1], '^%d+')) < started - 1000 then
    redis.call('HDEL', adopted, marks[i])
  end
end
redis.call('HDEL', state, 'cursor', 'started', 'holder', 'until', 'seen')
redis.call('HSET', state, 'from', started)
local after = changes(1)
if after then
  redis.call('HSET', state, 'seen', after)
end
return { 'done' }
