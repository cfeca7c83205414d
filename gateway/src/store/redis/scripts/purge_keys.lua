-- Removes documents of one hash of a plain or listed table.
--
-- KEYS  the hash; the table's index, if it has one
-- ARGV  how many at most
local keys = redis.call('HRANDFIELD', KEYS[1], ARGV[1])
for i = 1, #keys do
  redis.call('HDEL', KEYS[1], keys[i])
  if KEYS[2] then
    redis.call('ZREM', KEYS[2], keys[i])
  end
end
return #keys
