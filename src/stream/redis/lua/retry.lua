-- Delivers a message that a group has not acknowledged to one member again, or parks it after too many deliveries.
-- KEYS    the retained messages (stream) | the parked ones (stream)
-- ARGV    group | member | id | how many deliveries are allowed | how many parked messages to keep
-- returns { id, { field, text, ... } } to deliver; 'trimmed' if it is not there any more; or nil: it is parked,
--         acknowledged, or claimed by another member
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending or pending[2] ~= ARGV[2] then
  return false
end
local entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
if not entry then
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return 'trimmed'
end
if pending[4] >= tonumber(ARGV[4]) then
  local add = { 'XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'id', ARGV[3], 'deliveries', pending[4] }
  for _, part in ipairs(entry[2]) do
    add[#add + 1] = part
  end
  redis.call(unpack(add))
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
  return false
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3])
return entry
