-- Claims a piece of work of a subject.
-- KEYS    the claims of the subject (hash: holder by work) | the holders (sorted set: Unix ms at which the lease ends)
-- ARGV    work | holder | 1 to claim what is unclaimed | ms for which the claims are kept
-- returns 1 if the holder has it, 2 if it has taken it over, 0 if another has it or it is unclaimed
local current = redis.call('HGET', KEYS[1], ARGV[1])
if current == ARGV[2] then
  return 1
end
if not current and ARGV[3] ~= '1' then
  return 0
end
if current then
  local now = redis.call('TIME')
  local till = redis.call('ZSCORE', KEYS[2], current)
  if till and tonumber(till) >= now[1] * 1000 + math.floor(now[2] / 1000) then
    return 0
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return current and 2 or 1
