-- A page of a listed table, by key.
--
-- KEYS  the head; the table's index; then the hashes of the keys that the plan expects
-- ARGV  the plan: { where to begin, limit, the index of the hash of each expected key }
--
-- Answers { 0, head, whether there are more, key, document, key, document … }
--         { 2, keys … }   a key was not expected
local from, limit, hashes = plan[1], plan[2], plan[3]
local keys = call('ZRANGEBYLEX', KEYS[2], from, '+', 'LIMIT', 0, limit + 1)
local more = #keys > limit
if more then
  keys[#keys] = nil
end
local answer = { 0, head or '', more and 1 or 0 }
for i = 1, #keys do
  local hash = hashes[keys[i]]
  if not hash then
    return { 2, unpack(keys) }
  end
  answer[#answer + 1] = keys[i]
  answer[#answer + 1] = call('HGET', KEYS[hash], keys[i])
end
return answer
