-- Removes documents of a plain or listed table, hash by hash.
--
-- KEYS  the head; that of what is required; the hashes of the table; its index, if it has one
-- ARGV  the plan: how many at most, the index of the table's index or 0, how many hashes, then the index of each
--
-- Answers { 0, whether none is left (0 or 1) }
local left, index, count
left, index, count, rest = take('>I6I2I2', plan, rest)
local hashes, bites, none_left = {}, {}, 1
for i = 1, count do
  hashes[i], rest = take('>I2', plan, rest)
  -- Before anything is removed: a key that was emptied is gone, and on a moving slot touching it would fail.
  local length = call('HLEN', KEYS[hashes[i]])
  bites[i] = math.min(length, left)
  left = left - bites[i]
  if bites[i] < length then
    none_left = 0
  end
end
local removed = false
for i = 1, count do
  if bites[i] > 0 then
    local documents = call('HRANDFIELD', KEYS[hashes[i]], bites[i], 'WITHVALUES')
    for j = 1, #documents, 2 do
      retired, removed = math.max(retired, (take('>I6', documents[j + 1]))), true
      call('HDEL', KEYS[hashes[i]], documents[j])
      if index > 0 then
        call('ZREM', KEYS[index], documents[j])
      end
    end
  end
end
if removed then
  write_head()
end
return { 0, none_left }
