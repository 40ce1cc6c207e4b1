-- Returns the events that entries of the feed refer to, each with what its subject has after an earlier id.
-- ARGV    how many bytes of fields are enough | how many events of one subject are enough | subject, after, id, ... where
--         after is an exclusive or inclusive beginning as in XRANGE
-- returns one list of { id, { field, text, ... } } for each; fewer lists than were asked for once there are enough bytes
local enough, count, bytes, lists = tonumber(ARGV[1]), ARGV[2], 0, {}
for i = 3, #ARGV, 3 do
  local found = redis.pcall('XRANGE', ARGV[i], ARGV[i + 1], ARGV[i + 2], 'COUNT', count)
  local events = found.err and {} or found
  lists[#lists + 1] = events
  for _, event in ipairs(events) do
    for _, text in ipairs(event[2]) do
      bytes = bytes + #text
    end
  end
  if bytes > enough then
    break
  end
end
return lists
