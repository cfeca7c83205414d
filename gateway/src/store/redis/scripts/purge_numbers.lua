-- Removes the oldest documents of a numbered table.
--
-- KEYS  the head; those of what is required; the table's index of changes; then hashes of numbers and of keys
-- ARGV  the plan: up to which number the table was purged when its documents were read, the index of the key of its changes,
--       how many documents these are, then each: number, index of its hash, key, index of its hash
--
-- Answers { 0, 1 }, or { 0, 0 } if somebody else purged meanwhile.
local expected, changes, count
expected, changes, count, rest = take('>I6I2I6', plan, rest)
if purged ~= expected then
  return { 0, 0 }
end
for _ = 1, count do
  local n, by_number, key, by_key
  n, by_number, key, by_key, rest = take('>I6I2I2c0I2', plan, rest)
  retired = math.max(retired, (take('>I6', call('HGET', KEYS[by_number], n))))
  call('HDEL', KEYS[by_number], n)
  call('HDEL', KEYS[by_key], key)
  call('ZREM', KEYS[changes], n)
  purged = n
end
if count > 0 then
  write_head()
end
return { 0, 1 }
