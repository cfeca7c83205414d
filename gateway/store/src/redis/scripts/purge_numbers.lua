-- Removes the documents with the lowest numbers of a numbered table.
--
-- KEYS  the head; those of the precondition; the table's index of changes; then hashes of numbers and of keys
-- ARGV  the plan: the number up to which the table was purged when its documents were read, index of the index of changes,
--       number of documents, then for each: number, index of its hash, key, index of its hash
--
-- Returns { 0, 1 }, or { 0, 0 } if another purge ran meanwhile (nothing removed)
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
