-- Reads documents of a plain or listed table, hash by hash. Included after `head.lua`.
--
-- KEYS  the head; the hashes of the table
-- ARGV  the plan: the first hash, from 0; the HSCAN cursor in it; number of documents
--
-- Returns { the next hash, the cursor in it, key, document, key, document … }. The scan is complete when the next hash does not exist.
local hash, within, limit = take('>I2I2c0I6', plan)
local hashes = #KEYS - 1
if not head then
  return { hashes, '0' }
end
local answer = { 0, '0' }
local function take_all(pairs_of)
  for i = 1, #pairs_of do
    answer[#answer + 1] = pairs_of[i]
  end
end
local left = limit
while hash < hashes and left > 0 do
  local key = KEYS[hash + 2]
  local length = call('HLEN', key)
  if within ~= '0' or length > limit then
    -- HSCAN may return a document twice while the server resizes the hash.
    local step = call('HSCAN', key, within, 'COUNT', limit)
    within = step[1]
    take_all(step[2])
    left = 0
    if within == '0' then
      hash = hash + 1
    end
  elseif length <= left then
    if length > 0 then
      take_all(call('HGETALL', key))
    end
    left = left - length
    hash = hash + 1
  else
    left = 0
  end
end
answer[1], answer[2] = hash, within
return answer
