-- A snapshot.
--
-- KEYS  the head; then those that the documents name by their index
-- ARGV  the plan: { documents, newest as { index of its hash, bucket } or {} }
--
-- Answers { 0, head, each document or nil, the newest or nil if asked }
--         { 2, number, the number of each document or 0 }   a number lies in a hash that was not declared
local NUMBERED = 2
local documents, newest = plan[1], plan[2]
local answer, numbers, unsure = { 0, head or '' }, { 2, number }, false
for i = 1, #documents do
  local d = documents[i]
  local found = call('HGET', KEYS[d[3]], d[2])
  numbers[i + 2] = 0
  if d[1] == NUMBERED and found then
    numbers[i + 2] = tonumber(found)
    if d[4] > 0 and d[5] == floor(found / BUCKET) then
      found = call('HGET', KEYS[d[4]], found)
    else
      unsure = true
    end
  end
  answer[i + 2] = found
end
if newest[1] and number > purged then
  if newest[1] > 0 and newest[2] == floor(number / BUCKET) then
    answer[#answer + 1] = call('HGET', KEYS[newest[1]], number)
  else
    unsure = true
  end
end
return unsure and numbers or answer
