-- A piece of a plain or listed table, hash by hash. Stands behind `head.lua`.
--
-- KEYS  the head; the hashes of the table
-- ARGV  the plan: the hash to begin with, from 0; where in it; how many documents
--
-- Answers { the hash to go on with, where in it, key, document, key, document … }; beyond the last hash there is no more
local place, within, limit = take('>I2I2c0I6', plan)
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
while place < hashes and left > 0 do
  local key = KEYS[place + 2]
  local length = call('HLEN', key)
  if within ~= '0' or length > limit then
    -- A large one, in steps: what it answers may come twice while the server makes it larger.
    local step = call('HSCAN', key, within, 'COUNT', limit)
    within = step[1]
    take_all(step[2])
    left = 0
    if within == '0' then
      place = place + 1
    end
  elseif length <= left then
    if length > 0 then
      take_all(call('HGETALL', key))
    end
    left = left - length
    place = place + 1
  else
    left = 0
  end
end
answer[1], answer[2] = place, within
return answer
