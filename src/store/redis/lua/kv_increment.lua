-- Adds to the number in a key (a missing one is 0) and keeps its time to live.
-- KEYS    the key
-- ARGV    what to add
-- returns the sum as text
-- INCRBY for whole numbers that are exact in JavaScript.
if string.find(ARGV[1], '^%-?%d+$') then
  local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
  if type(sum) == 'number' then
    if math.abs(sum) < 9007199254740992 then
      return string.format('%.0f', sum)
    end
    redis.call('DECRBY', KEYS[1], ARGV[1])
  end
end
local old = redis.call('GET', KEYS[1]) or '0'
if not is_number(old) then
  return redis.error_reply('NVENT_TYPE key "' .. KEYS[1] .. '": the value there is no number')
end
local sum = number_text(tonumber(old) + tonumber(ARGV[1]))
if not sum then
  return redis.error_reply('NVENT_TYPE key "' .. KEYS[1] .. '": the sum is not a finite number')
end
redis.call('SET', KEYS[1], sum, 'KEEPTTL')
return sum
