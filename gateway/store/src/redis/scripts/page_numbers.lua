-- Reads a page of a numbered table, by number or by last change.
--
-- KEYS  the head; for kind 2 the table's index of changes; then hashes of numbered documents
-- ARGV  the plan: kind, bound, limit, maximum bytes of more than one document, number of expected buckets, then each with the index of its hash
--       kind 0: the highest numbers below the bound, 1: the lowest above it, 2: changed after it
--
-- Returns { 0, head, 1 if there are more documents, documents … }
--         { 2, number, buckets … }   the hash of a bucket is not declared
local BEFORE, AFTER = 0, 1
local kind, bound, limit, most, count, hashes = nil, nil, nil, nil, nil, {}
kind, bound, limit, most, count, rest = take('>BI8I6I6I2', plan, rest)
for _ = 1, count do
  local bucket, hash
  bucket, hash, rest = take('>I6I2', plan, rest)
  hashes[bucket] = hash
end
-- Documents per HMGET. Those beyond the maximum bytes are fetched for nothing.
local BATCH = 16
-- In the order in which they fill the page: descending for kind 0.
local numbers, more = {}, false
if kind == BEFORE then
  local last = math.min(bound - 1, number)
  local first = math.max(purged + 1, last - limit + 1)
  more = last > purged and first > purged + 1
  for n = last, first, -1 do
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

local documents, bytes, is_full, i = {}, 0, false, 1
while i <= #numbers and not is_full do
  local bucket, last = floor(numbers[i] / BUCKET), i
  while last < #numbers and last - i < BATCH - 1 and floor(numbers[last + 1] / BUCKET) == bucket do
    last = last + 1
  end
  local found = call('HMGET', KEYS[hashes[bucket]], unpack(numbers, i, last))
  for j = 1, #found do
    if found[j] and not is_full then
      bytes = bytes + #found[j]
      is_full = #documents > 0 and bytes > most
      if not is_full then
        documents[#documents + 1] = found[j]
      end
    end
  end
  i = last + 1
end
local answer = { 0, head or '', (more or is_full) and 1 or 0 }
local first, last, step = 1, #documents, 1
if kind == BEFORE then
  first, last, step = last, first, -1
end
for k = first, last, step do
  answer[#answer + 1] = documents[k]
end
return answer
