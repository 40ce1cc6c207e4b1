-- Shared by the scripts that add to the feed: one entry for each event, in the order in which the store took them. The id
-- of an entry is <ms>-<n>, where n counts all entries, so that what was trimmed can be counted. Its first field is named e,
-- or a for an event that another writer appended (adopted later), followed by o, the name of the instance that appended it,
-- where it has one; the text is `<id> <length of type> <type><subject>`.
-- Returns the position.
local function feed_add(feed, state, max_len, channel, subject, id, kind, adopted, instance)
  local n = redis.call('HINCRBY', state, 'n', 1)
  local now = redis.call('TIME')
  local position = now[1] .. string.sub('00000' .. now[2], -6, -4) .. '-' .. string.format('%.0f', n)
  local text = id .. ' ' .. #kind .. ' ' .. kind .. subject
  local add = { 'XADD', feed, 'MAXLEN', '~', max_len, position, adopted and 'a' or 'e', text }
  if instance and instance ~= '' then
    add[9], add[10] = 'o', instance
  end
  if type(redis.pcall(unpack(add))) == 'table' then
    -- The server's clock went back, or the counter was lost: go on after the last entry.
    local info = redis.call('XINFO', 'STREAM', feed)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        local ms, last = string.match(info[i + 1], '^(%d+)-(%d+)$')
        n = math.max(n, last + 1)
        position = string.format('%.0f-%.0f', math.max(ms, now[1] * 1000 + math.floor(now[2] / 1000)), n)
      end
    end
    redis.call('HSET', state, 'n', string.format('%.0f', n))
    add[6] = position
    redis.call(unpack(add))
  end
  -- pcall: a user whose ACL allows no channels can append.
  redis.pcall('PUBLISH', channel, adopted and '' or position .. ' ' .. text)
  return position
end
