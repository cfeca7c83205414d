-- Renews a node's lease and sets the session counts of members.
--
-- KEYS  the nodes; the lease; its members; members of ended leases that no sweep has returned; the key to delete first
-- ARGV  node, ttl in ms, then member, sessions, member, sessions …
--
-- Returns 1 if the lease existed, else 0.

-- A server with full memory checks only the first write of a script, and allows a deletion. Leases are small and must be renewed.
redis.call('DEL', KEYS[5])
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
