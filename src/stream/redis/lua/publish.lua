-- Keeps a message of a retained topic and publishes it, with its id in the message.
-- KEYS    the retained messages (stream) | the retained topics (set)
-- ARGV    topic | the message as JSON | how many to keep | who publishes | the message without its opening brace,
--         with a comma before its first field if it has one | its number among those of who publishes |
--         among how many of the newest to look whether it is there already
-- returns the id
if ARGV[7] ~= '0' then
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[7])) do
    local fields = entry[2]
    if fields[4] == ARGV[4] and fields[6] == ARGV[6] then
      return entry[1]
    end
  end
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'message', ARGV[2], 'origin', ARGV[4], 'n', ARGV[6])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[1], '{"~nvent":"' .. ARGV[4] .. '/' .. id .. '"' .. ARGV[5])
return id
