-- Removes the oldest documents of a numbered table.
--
-- KEYS  the head; the table's index of changes; then hashes of numbers and of keys
-- ARGV  the plan: up to which number the table was purged when its documents were read, how many these are, then each:
--       number, index of its hash, key, index of its hash
--
-- Answers 1, or 0 if somebody else purged meanwhile.
local expected, count
expected, count, rest = take('>I6I6', plan, rest)
if purged ~= expected then
  return 0
end
for _ = 1, count do
  local n, by_number, key, by_key
  n, by_number, key, by_key, rest = take('>I6I2I2c0I2', plan, rest)
  retired = math.max(retired, (take('>I6', call('HGET', KEYS[by_number], n))))
  call('HDEL', KEYS[by_number], n)
  call('HDEL', KEYS[by_key], key)
  call('ZREM', KEYS[2], n)
  purged = n
end
write_head()
return 1
