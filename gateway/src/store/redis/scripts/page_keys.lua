-- A page of a listed table, by key.
--
-- KEYS  the head; the table's index; then the hashes of the keys that the plan expects
-- ARGV  the plan: where to begin, limit, how many keys are expected, then each with the index of its hash
--
-- Answers { 0, head, whether there are more, key, document, key, document … }
--         { 2, keys … }   a key was not expected
local from, limit, count, hashes = nil, nil, nil, {}
from, limit, count, rest = take('>I2c0I6I6', plan, rest)
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
local answer = { 0, head or '', more and 1 or 0 }
for i = 1, #keys do
  local hash = hashes[keys[i]]
  if not hash then
    table.insert(keys, 1, 2)
    return keys
  end
  answer[#answer + 1] = keys[i]
  answer[#answer + 1] = call('HGET', KEYS[hash], keys[i])
end
return answer
