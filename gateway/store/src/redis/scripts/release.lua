-- Ends a lease and removes its members.
--
-- KEYS  the nodes; the lease; its members
-- ARGV  node
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SREM', KEYS[1], ARGV[1])
return 1
