-- Shared by the scripts that create kv values: removes expired ones from the set of keys. Two for each that is added keeps
-- the set about as large as the number of live keys.
local function prune_expired(keys)
  for _, key in ipairs(redis.call('SRANDMEMBER', keys, 2)) do
    if redis.call('EXISTS', key) == 0 then
      redis.call('SREM', keys, key)
    end
  end
end
