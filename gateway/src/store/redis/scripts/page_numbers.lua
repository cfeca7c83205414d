-- A page of a numbered table, by number or by last change.
--
-- KEYS  the head; the table's index of changes if asked by change; then hashes of numbers
-- ARGV  the plan: kind, bound, limit, how many buckets are expected, then each with the index of its hash
--       kind 0 the newest below the bound, 1 the oldest above the bound, 2 changed after the bound
--
-- Answers { 0, head, whether there are more, documents … }
--         { 2, number, buckets … }   a bucket was not expected
local BEFORE, AFTER = 0, 1
local kind, bound, limit, count, hashes = nil, nil, nil, nil, {}
kind, bound, limit, count, rest = take('>BI8I6I2', plan, rest)
for _ = 1, count do
  local bucket, hash
  bucket, hash, rest = take('>I6I2', plan, rest)
  hashes[bucket] = hash
end
local numbers, more = {}, false
if kind == BEFORE then
  local last = math.min(bound - 1, number)
  local first = math.max(purged + 1, last - limit + 1)
  more = last > purged and first > purged + 1
  for n = first, last do
    numbers[#numbers + 1] = n
  end
elseif kind == AFTER then
  local first = math.max(bound, purged) + 1
  local last = math.min(first + limit - 1, number)
  more = last < number
  for n = first, last do
    numbers[#numbers + 1] = n
  end
else
  numbers = head and call('ZRANGEBYSCORE', KEYS[2], string.format('(%.0f', bound), '+inf', 'LIMIT', 0, limit + 1) or {}
  more = #numbers > limit
  if more then
    numbers[#numbers] = nil
  end
end

local needed, missing = {}, { 2, number }
for i = 1, #numbers do
  local bucket = floor(numbers[i] / BUCKET)
  if not needed[bucket] then
    needed[bucket] = true
    missing[#missing + 1] = bucket
  end
end
for bucket in pairs(needed) do
  if not hashes[bucket] then
    return missing
  end
end

local answer = { 0, head or '', more and 1 or 0 }
local i = 1
while i <= #numbers do
  -- One command for each run of numbers in the same hash.
  local bucket, last = floor(numbers[i] / BUCKET), i
  while last < #numbers and last - i < 999 and floor(numbers[last + 1] / BUCKET) == bucket do
    last = last + 1
  end
  local found = call('HMGET', KEYS[hashes[bucket]], unpack(numbers, i, last))
  for j = 1, #found do
    if found[j] then
      answer[#answer + 1] = found[j]
    end
  end
  i = last + 1
end
return answer
