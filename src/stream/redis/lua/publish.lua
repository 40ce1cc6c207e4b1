-- Retains a message and publishes it, with its id in the message. (After the functions of retain.lua.)
-- KEYS    the retained messages (stream) | the retained topics (set) | the numbers of the last messages (hash) |
--         how many messages each group missed by trimming (hash)
-- ARGV    topic | the message as JSON | how many to keep | how many more to keep for groups | who publishes |
--         the message without its opening brace, with a comma before its first field if it has one |
--         its number among those of who publishes | how many of the newest messages to search for it, as it may be there
-- returns the id
if ARGV[8] ~= '0' then
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[8])) do
    local fields = entry[2]
    if fields[4] == ARGV[5] and fields[6] == ARGV[7] then
      return entry[1]
    end
  end
end
local keys = { stream = KEYS[1], topics = KEYS[2], sequence = KEYS[3], trimmed = KEYS[4] }
return retain(keys, ARGV[1], ARGV[2], ARGV[5], ARGV[7], ARGV[6], ARGV[3], ARGV[4])
