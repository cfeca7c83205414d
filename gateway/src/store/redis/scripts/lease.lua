-- Renews a node's lease and sets members of it.
--
-- KEYS  the nodes; the lease; its members; members of ended leases that were not told yet
-- ARGV  node, ttl in ms, then member, sessions, member, sessions …
--
-- Answers whether the lease had not ended.
local lived = redis.call('EXISTS', KEYS[2])
if lived == 0 then
  local ended = redis.call('HKEYS', KEYS[3])
  for i = 1, #ended do
    redis.call('SADD', KEYS[4], ended[i])
  end
  redis.call('DEL', KEYS[3])
end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
redis.call('SADD', KEYS[1], ARGV[1])
for i = 3, #ARGV, 2 do
  if ARGV[i + 1] == '0' then
    redis.call('HDEL', KEYS[3], ARGV[i])
  else
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return lived
