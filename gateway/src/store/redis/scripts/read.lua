-- A snapshot.
--
-- KEYS  the head; then those that the documents name by their index
-- ARGV  the plan: how many documents, whether the newest is asked for (0 or 1), the index of its hash, which thousand that is;
--       then the documents as in `commit.lua`
--
-- Answers { 0, head, each document or nil, the newest or nil if asked }
--         { 2, number, the number of each document or 0 }   a number lies in a hash that was not declared
local NUMBERED = 2
local count, newest, newest_hash, newest_bucket
count, newest, newest_hash, newest_bucket, rest = take('>I2BI2I6', plan, rest)
local answer, numbers, unsure = { 0, head or '' }, { 2, number }, false
for i = 1, count do
  local order, key, hash, index, bucket, _
  order, key, hash, index, bucket, _, rest = take('>BI2c0I2I2I6I2', plan, rest)
  local found = head and call('HGET', KEYS[hash], key)
  numbers[i + 2] = 0
  if order == NUMBERED and found then
    numbers[i + 2] = tonumber(found)
    if index > 0 and bucket == floor(found / BUCKET) then
      found = call('HGET', KEYS[index], found)
    else
      unsure = true
    end
  end
  answer[i + 2] = found
end
if newest > 0 and number > purged then
  if newest_hash > 0 and newest_bucket == floor(number / BUCKET) then
    answer[count + 3] = call('HGET', KEYS[newest_hash], number)
  else
    unsure = true
  end
end
return unsure and numbers or answer
