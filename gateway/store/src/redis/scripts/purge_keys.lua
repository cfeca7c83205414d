-- Removes documents of a plain or listed table, hash by hash.
--
-- KEYS  the head; those of the precondition; the hashes of the table; its index, if any
-- ARGV  the plan: maximum number of documents, index of the table's index or 0, number of hashes, then the index of each
--
-- Returns { 0, 1 if the table is empty now, else 0 }
local left, index, count
left, index, count, rest = take('>I6I2I2', plan, rest)
local hashes, counts, is_empty = {}, {}, 1
for i = 1, count do
  hashes[i], rest = take('>I2', plan, rest)
  -- Before any removal, which may delete a key: a script must not use a missing key of a migrating slot.
  local length = call('HLEN', KEYS[hashes[i]])
  counts[i] = math.min(length, left)
  left = left - counts[i]
  if counts[i] < length then
    is_empty = 0
  end
end
local removed = false
for i = 1, count do
  if counts[i] > 0 then
    local documents = call('HRANDFIELD', KEYS[hashes[i]], counts[i], 'WITHVALUES')
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
return { 0, is_empty }
