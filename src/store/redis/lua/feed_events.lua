-- Returns the events that entries of the feed refer to, each with what its subject has after an earlier id.
-- ARGV    how many bytes of fields are enough | how many events of one subject are enough | beginning of the keys with the
--         last ids of deleted subjects | subject, start, id, ... where start is a beginning as in XRANGE
-- returns for each one list of { id, { field, text, ... } }, or 1 where the event was trimmed; fewer than were asked for
--         once there are enough bytes
local enough, count, bytes, lists = tonumber(ARGV[1]), ARGV[2], 0, {}
local function less(a, b)
  local ms, seq = string.match(a, '^(%d+)-(%d+)$')
  local other_ms, other_seq = string.match(b, '^(%d+)-(%d+)$')
  ms, seq, other_ms, other_seq = tonumber(ms), tonumber(seq), tonumber(other_ms), tonumber(other_seq)
  return ms < other_ms or ms == other_ms and seq < other_seq
end
-- Trimmed: the subject begins later, and not because it was deleted in between.
local function is_trimmed(subject, id)
  local first = redis.pcall('XRANGE', subject, '-', '+', 'COUNT', 1)
  if first.err or not first[1] or not less(id, first[1][1]) then
    return false
  end
  local deleted = redis.pcall('HGET', ARGV[3] .. subject, 'last')
  return type(deleted) ~= 'string' or less(deleted, id)
end
for i = 4, #ARGV, 3 do
  local found = redis.pcall('XRANGE', ARGV[i], ARGV[i + 1], ARGV[i + 2], 'COUNT', count)
  local events = found.err and {} or found
  for _, event in ipairs(events) do
    for _, text in ipairs(event[2]) do
      bytes = bytes + #text
    end
  end
  lists[#lists + 1] = #events == 0 and is_trimmed(ARGV[i], ARGV[i + 2]) and 1 or events
  if bytes > enough then
    break
  end
end
return lists
