-- Reads a snapshot.
--
-- KEYS  the head; then keys that documents refer to by index
-- ARGV  the plan: number of documents, 1 to include the newest document, index of its hash, the hash's bucket,
--       maximum bytes of the documents; then the documents as in `commit.lua`
--
-- Returns { 0, head, each document or nil, the newest document or nil if requested }
--         { 2, number, number of each document or 0 }   the hash of a numbered document is not declared
-- Reading stops before the document that exceeds the maximum, but not before the first. A read with a maximum does not
-- request the newest document.
local NUMBERED = 2
local count, newest, newest_hash, newest_bucket, most
count, newest, newest_hash, newest_bucket, most, rest = take('>I2BI2I6I6', plan, rest)
local bytes = 0
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
  bytes = bytes + (found and #found or 0)
  if i > 1 and bytes > most then
    break
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
