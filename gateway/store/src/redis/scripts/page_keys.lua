-- Reads a page of a listed table, by key.
--
-- KEYS  the head; the table's index; then the hashes of the expected keys
-- ARGV  the plan: start of the range, limit, maximum bytes of more than one document, number of expected keys, then each with the index of its hash
--
-- Returns { 0, head, 1 if there are more documents, key, document, key, document … }
--         { 2, keys … }   the hash of a key is not declared
local from, limit, most, count, hashes = nil, nil, nil, nil, {}
from, limit, most, count, rest = take('>I2c0I6I6I6', plan, rest)
for _ = 1, count do
  local key, hash
  key, hash, rest = take('>I2c0I2', plan, rest)
  hashes[key] = hash
end
local keys = head and call('ZRANGEBYLEX', KEYS[2], from, '+', 'LIMIT', 0, limit + 1) or {}
local more = #keys > limit
if more then
  keys[#keys] = nil
end
local answer, bytes = { 0, head or '', more and 1 or 0 }, 0
for i = 1, #keys do
  local hash = hashes[keys[i]]
  if not hash then
    table.insert(keys, 1, 2)
    return keys
  end
  local found = call('HGET', KEYS[hash], keys[i])
  bytes = bytes + (found and #found or 0)
  if i > 1 and bytes > most then
    answer[3] = 1
    return answer
  end
  answer[#answer + 1] = keys[i]
  answer[#answer + 1] = found
end
return answer
