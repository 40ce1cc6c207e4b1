-- Adds to the number in a key (a missing one is 0) and keeps its time to live.
-- KEYS    the key | the kv keys written by native instances (set)
-- ARGV    what to add
-- returns the sum as text; NVENT_TYPE where the value is no number or the sum is not finite
-- INCRBY for whole numbers that are exact in JavaScript.
if string.find(ARGV[1], '^%-?%d+$') then
  local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
  if type(sum) == 'number' then
    if math.abs(sum) < 9007199254740992 then
      local text = string.format('%.0f', sum)
      -- Of a key that did not exist, or held 0.
      if text == ARGV[1] and redis.call('SADD', KEYS[2], KEYS[1]) == 1 then
        prune_expired(KEYS[2])
      end
      return text
    end
    redis.call('DECRBY', KEYS[1], ARGV[1])
  end
end
local old = redis.call('GET', KEYS[1])
if old and not is_number(old) then
  return redis.error_reply('NVENT_TYPE the value of the key is no number')
end
local sum = number_text(tonumber(old or '0') + tonumber(ARGV[1]))
if not sum then
  return redis.error_reply('NVENT_TYPE the sum is not a finite number')
end
redis.call('SET', KEYS[1], sum, 'KEEPTTL')
if not old and redis.call('SADD', KEYS[2], KEYS[1]) == 1 then
  prune_expired(KEYS[2])
end
return sum
