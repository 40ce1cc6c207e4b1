-- Lets others have what a member did not get to, and forgets members with nothing to do: this one, and those gone for a day.
-- KEYS    the retained messages (stream)
-- ARGV    group | member | id, ... that it did not get to
for i = 3, #ARGV do
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', 86400000, 'JUSTID')
end
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local member = {}
  for i = 1, #info, 2 do
    member[info[i]] = info[i + 1]
  end
  if member.pending == 0 and (member.name == ARGV[2] or member.idle > 86400000) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], member.name)
  end
end
return 1
