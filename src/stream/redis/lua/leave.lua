-- Releases claims of a member to the others, and removes members without claims: this one, and those idle for a day.
-- KEYS    the retained messages (stream)
-- ARGV    group | member | id, ... to release
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
