-- Removes the oldest documents of a numbered table.
--
-- KEYS  the head; the table's index of changes; then hashes of numbers and of keys
-- ARGV  the plan: { up to which number the table was purged when its documents were read,
--       { number, index of its hash, key, index of its hash } … }
--
-- Answers 1, or 0 if somebody else purged meanwhile.
local expected, documents = plan[1], plan[2]
if purged ~= expected then
  return 0
end
for i = 1, #documents do
  local d = documents[i]
  call('HDEL', KEYS[d[2]], d[1])
  call('HDEL', KEYS[d[4]], d[3])
  call('ZREM', KEYS[2], d[1])
  purged = d[1]
end
write_head()
return 1
