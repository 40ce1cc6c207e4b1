-- Keeps a message of a retained topic and publishes it, with its id in the message.
-- KEYS    the retained messages (stream) | the retained topics (set)
-- ARGV    topic | the message as JSON | how many to keep | who publishes | the message without its opening brace,
--         with a comma before its first field if it has one
-- returns the id
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'message', ARGV[2], 'origin', ARGV[4])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[1], '{"~nvent":"' .. ARGV[4] .. '/' .. id .. '"' .. ARGV[5])
return id
