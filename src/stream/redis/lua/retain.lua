-- Functions of the scripts that add messages to a retained topic. Each message has a number, `s`, which counts the
-- messages of its topic from which follows how many lie between two of them.

-- Returns the number of a stream's entry, or nil if an earlier version added it.
local function number_of(entry)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 's' then
      return tonumber(entry[2][i + 1])
    end
  end
  return nil
end

-- Returns how many entries come after `id` (and at it, if `inclusive`). `last` is the number of the last one.
local function count_from(stream, id, inclusive, last, length)
  local from = redis.call('XRANGE', stream, id, '+', 'COUNT', 1)[1]
  if not from then
    return 0
  end
  local number = number_of(from)
  if not number or number > last then
    return length
  end
  local count = last - number + 1
  if from[1] == id and not inclusive then
    count = count - 1
  end
  return math.min(count, length)
end

-- Removes the oldest messages beyond `max_len`, but none that a group still needs, unless there are more than
-- `max_len + max_backlog`. Adds what a group misses by that to its field of the hash `trimmed`.
local function trim(stream, trimmed, last, max_len, max_backlog)
  -- In steps, as counting costs more than adding.
  local step = math.max(1, math.min(100, math.floor(max_len / 10)))
  if last % step ~= 0 then
    return
  end
  local length = redis.call('XLEN', stream)
  if length <= max_len then
    return
  end
  local keep, undelivered = max_len, {}
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group = {}
    for i = 1, #info, 2 do
      group[info[i]] = info[i + 1]
    end
    undelivered[group.name] = count_from(stream, group['last-delivered-id'], false, last, length)
    local needed = undelivered[group.name]
    if group.pending > 0 then
      local oldest = redis.call('XPENDING', stream, group.name)[2]
      needed = math.max(needed, count_from(stream, oldest, true, last, length))
    end
    keep = math.max(keep, needed)
  end
  keep = math.min(keep, max_len + max_backlog)
  for name, count in pairs(undelivered) do
    if count > keep then
      redis.call('HINCRBY', trimmed, name, count - keep)
    end
  end
  redis.call('XTRIM', stream, 'MAXLEN', keep)
end

-- Adds a message to a retained topic and publishes it with its id. `rest` is the message without its opening brace, with
-- a comma before its first field if it has one.
local function retain(keys, topic, message, origin, n, rest, max_len, max_backlog)
  local last = redis.call('HINCRBY', keys.sequence, topic, 1)
  local id = redis.call('XADD', keys.stream, '*', 'message', message, 'origin', origin, 'n', n, 's', last)
  redis.call('SADD', keys.topics, topic)
  trim(keys.stream, keys.trimmed, last, tonumber(max_len), tonumber(max_backlog))
  redis.call('PUBLISH', topic, '{"~nvent":"' .. origin .. '/' .. id .. '"' .. rest)
  return id
end
