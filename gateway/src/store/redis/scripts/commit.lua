-- One commit: read, check, and only then write. `plan.rs` makes the plan and reads the answer; the layout is in `keys.rs`.
--
-- KEYS  the head; the log, if anything is appended; then those that the documents name by their index
-- ARGV  the plan: { channel, publish command, events kept, bytes kept, clock offset, expire,
--       documents, requirements, writes, increments, appends }, all indexes from 1 and 0 for none
--
-- Answers { 0, at, at of the event before, first seq, number, six integers a write, one a counter, the counters in each record }
--         { 1, failed requirements, failed increments }                        (indexes from 0)
--         { 2, number, the number of each document or 0 }   nothing done: a number lies in a hash that was not declared
--         { 3, keys }                       nothing done: the expiry moves, and these keys of the partition were not declared
local PLAIN, LISTED, NUMBERED = 0, 1, 2
local ABSENT, PRESENT, VERSION = 0, 1, 2
local PUT, TOUCH = 0, 1
local EDITED, DELETED = 1, 2
local channel, publish, keep_events, keep_bytes, offset, expire = plan[1], plan[2], plan[3], plan[4], plan[5], plan[6]
local documents, requires, writes, increments, appends = plan[7], plan[8], plan[9], plan[10], plan[11]

-- `<` compares strings by the server's locale; names are ordered by their bytes.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- A MessagePack map in the byte order of its names; nothing at all for no names (cmsgpack cannot tell an empty map from an array).
local function packed_counts(counts)
  local names, flat = {}, {}
  for name in pairs(counts) do
    names[#names + 1] = name
  end
  local n = #names
  if n == 0 then
    return ''
  end
  table.sort(names, before)
  for i = 1, n do
    flat[2 * i - 1], flat[2 * i] = names[i], counts[names[i]]
  end
  -- The elements of an array are encoded like those of a map; only the header differs.
  local body = cmsgpack.pack(flat):sub(n < 8 and 2 or 4)
  return (n < 16 and string.char(0x80 + n) or pack('>BI2', 0xde, n)) .. body
end

-- A document is 6 integers, the length of its key, the length of its counters, key, counters, value.
local function open(d)
  if not d.version then
    local key_length, counts_length
    d.version, d.number, d.seq, d.created, d.edited, d.deleted, key_length, counts_length = struct.unpack('>I6I6I6I6I6I6I2I4', d.raw)
    local counts_at = 43 + key_length
    d.packed = d.raw:sub(counts_at, counts_at + counts_length - 1)
    d.value = d.raw:sub(counts_at + counts_length)
  end
  return d
end

local function counts_of(d)
  if not d.counts then
    open(d)
    d.counts = d.packed == '' and {} or cmsgpack.unpack(d.packed)
  end
  return d.counts
end

local function stale()
  local answer = { 2, number }
  for i = 1, #documents do
    answer[i + 2] = documents[i][1] == NUMBERED and documents[i].exists and documents[i].number or 0
  end
  return answer
end

-- Reads.

for i = 1, #documents do
  local d = documents[i]
  local found = call('HGET', KEYS[d[3]], d[2])
  if d[1] ~= NUMBERED then
    d.raw = found
    d.exists = found
  elseif found then
    d.number = tonumber(found)
    d.exists = true
    if d[4] > 0 and d[5] == floor(d.number / BUCKET) then
      d.raw = call('HGET', KEYS[d[4]], found)
    end
  end
end

-- Checks. A check that needs a document whose hash was not declared leaves the answer to the next attempt.

local failed, over, unsure = {}, {}, false
for i = 1, #requires do
  local require = requires[i]
  local d, is = documents[require[1]], require[2]
  local holds
  if is == ABSENT then
    holds = not d.exists
  elseif is == PRESENT or not d.exists then
    holds = d.exists
  elseif not d.raw then
    holds, unsure = true, true
  elseif is == VERSION then
    holds = open(d).version == require[3]
  else
    holds = open(d).seq == require[3]
  end
  if not holds then
    failed[#failed + 1] = i - 1
  end
end

local partition_counts
local results = {}
for i = 1, #increments do
  local increment = increments[i]
  local name, by, max, max_names = increment[2], increment[3], increment[4], increment[5]
  local d, counts = documents[increment[1]], nil
  if not d then
    partition_counts = partition_counts or (counters == '' and {} or cmsgpack.unpack(counters))
    counts = partition_counts
  elseif not d.exists then
    over[#over + 1] = i - 1
  elseif not d.raw then
    unsure = true
  else
    counts = counts_of(d)
  end
  if counts then
    local was = counts[name]
    local is = math.max((was or 0) + by, 0)
    local fits = max < 0 or is <= max
    if is > 0 then
      counts[name] = is
    else
      counts[name] = nil
    end
    if max_names >= 0 then
      local names = 0
      for _ in pairs(counts) do
        names = names + 1
      end
      fits = fits and names <= max_names
    end
    if fits then
      results[i] = is
      if d then
        d.counted, d.dirty = true, true
      end
    else
      counts[name] = was
      over[#over + 1] = i - 1
    end
  end
end
if unsure then
  return stale()
end
if #failed > 0 or #over > 0 then
  return { 1, failed, over }
end

-- What will be written. Nothing is yet.

local time = call('TIME')
local clock = time[1] * 1000 + floor(time[2] / 1000)
now = math.max(clock + offset, now)
-- The keys of a partition that expires move together, so its head knows them. Such partitions are tiny.
local keys_known = {}
if expire > 0 or expires > 0 then
  local names = expiring == '' and {} or cmsgpack.unpack(expiring)
  local declared = {}
  for i = 1, #KEYS do
    declared[KEYS[i]] = i
  end
  for i = 1, #names do
    keys_known[names[i]] = true
    if expire > 0 and not declared[names[i]] then
      return { 3, names }
    end
  end
end
if expire > 0 then
  expires = clock + expire
end
local first, at_before = seq, at
local next_number = number
for i = 1, #writes do
  local write = writes[i]
  local kind, d, event = write[1], documents[write[2]], write[3]
  if kind == PUT then
    if not d.exists then
      d.version, d.number, d.seq, d.created, d.edited, d.deleted, d.packed = 0, 0, 0, now, 0, 0, ''
      if d[1] == NUMBERED then
        next_number = next_number + 1
        d.number = next_number
        if d[4] == 0 or d[5] ~= floor(next_number / BUCKET) then
          return stale()
        end
      end
    elseif not d.raw then
      return stale()
    else
      open(d)
    end
    d.version = d.version + 1
    d.value = write[5]
    if write[4] == EDITED then
      d.edited = now
    elseif write[4] == DELETED then
      d.deleted, d.counts, d.counted, d.packed = now, nil, false, ''
    end
  elseif kind == TOUCH and d.exists then
    if not d.raw then
      return stale()
    end
    open(d)
  end
  if kind == PUT or (kind == TOUCH and d.exists) then
    d.dirty = true
    if event > 0 and d.seq ~= first + event then
      d.seq = first + event
      d.changed = d[1] == NUMBERED
    end
  end
end
for i = 1, #documents do
  local d = documents[i]
  if d.counted then
    d.packed = packed_counts(d.counts)
  end
  if d.dirty then
    local key = d[1] == NUMBERED and d[2] or ''
    d.after = pack('>I6I6I6I6I6I6I2I4', d.version, d.number, d.seq, d.created, d.edited, d.deleted, #key, #d.packed) .. key .. d.packed .. d.value
  end
end
if partition_counts then
  counters = packed_counts(partition_counts)
end

local records, entries, counters_told = {}, {}, {}
for i = 1, #appends do
  local append = appends[i]
  local kind, reference, control, subject, written, body, counted = append[1], append[2], append[3], append[4], append[5], append[6], append[7]
  seq = seq + 1
  local mask, stamps, counts = 0, '', ''
  counters_told[i] = ''
  if written > 0 then
    local d = documents[writes[written][2]]
    body = d.value
    if d.number > 0 then
      mask, stamps = mask + 1, stamps .. pack('>I8', d.number)
    end
    if d.seq > 0 then
      mask, stamps = mask + 2, stamps .. pack('>I8', d.seq)
    end
    mask, stamps = mask + 4, stamps .. pack('>I8', d.created)
    if d.edited > 0 then
      mask, stamps = mask + 8, stamps .. pack('>I8', d.edited)
    end
    if d.deleted > 0 then
      mask, stamps = mask + 16, stamps .. pack('>I8', d.deleted)
    end
    if d.packed ~= '' then
      mask, counts, counters_told[i] = mask + 64, pack('>I4', #d.packed) .. d.packed, d.packed
    end
  elseif counted > 0 then
    mask, stamps = 32, pack('>I8', results[counted])
  end
  if control == 1 or control == 3 then
    subject = pack('>I2', #subject) .. subject
  end
  records[i] = pack('>BBBBI8I8I8', 1, kind, control, mask, seq, now, at) .. stamps .. subject .. counts .. body
  entries[i] = pack('>I6B', now, kind) .. reference
  log_bytes = log_bytes + 16 + #reference
  at = now
end

-- Writes. What is put comes first and what is removed last: a key that was emptied is gone, and on a moving slot touching it would fail.

local kept = {}
for i = 1, #documents do
  local d = documents[i]
  if d.after then
    if d[1] == NUMBERED then
      if not d.exists then
        call('HSET', KEYS[d[3]], d[2], d.number)
        kept[d[3]] = true
      end
      call('HSET', KEYS[d[4]], d.number, d.after)
      kept[d[4]] = true
      if d.changed then
        call('ZADD', KEYS[d[6]], d.seq, d.number)
        kept[d[6]] = true
      end
    else
      call('HSET', KEYS[d[3]], d[2], d.after)
      kept[d[3]] = true
      if d[1] == LISTED and not d.exists then
        call('ZADD', KEYS[d[4]], 0, d[2])
        kept[d[4]] = true
      end
    end
  end
end
number = next_number
if #entries > 0 then
  call('RPUSH', KEYS[2], unpack(entries))
  kept[2] = true
  -- At most a thousand at once, so that a lowered bound does not hold the server up; the next commits go on.
  for _ = 1, 1000 do
    local events = seq - floor_seq
    if events <= 1 or ((keep_events == 0 or events <= keep_events) and (keep_bytes == 0 or log_bytes <= keep_bytes)) then
      break
    end
    local entry = call('LPOP', KEYS[2])
    if not entry then
      break
    end
    floor_seq, floor_at = floor_seq + 1, (struct.unpack('>I6', entry))
    log_bytes = log_bytes - 16 - (#entry - 7)
  end
end
if #writes > 0 or #increments > 0 or #entries > 0 or expire > 0 then
  if expires > 0 then
    local names = {}
    for i in pairs(kept) do
      keys_known[KEYS[i]] = true
    end
    for name in pairs(keys_known) do
      names[#names + 1] = name
    end
    expiring = #names > 0 and cmsgpack.pack(names) or ''
    for i = 2, #KEYS do
      if kept[i] or (expire > 0 and keys_known[KEYS[i]]) then
        call('PEXPIREAT', KEYS[i], expires)
      end
    end
  end
  write_head()
end

local answer = { 0, now, at_before, #entries > 0 and first + 1 or seq, number }
for i = 1, #writes do
  local d = documents[writes[i][2]]
  if d.after then
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3] = d.version, d.number, d.seq
    answer[n + 4], answer[n + 5], answer[n + 6] = d.created, d.edited, d.deleted
  else
    for _ = 1, 6 do
      answer[#answer + 1] = 0
    end
    if writes[i][1] > TOUCH and d.exists then
      call('HDEL', KEYS[d[3]], d[2])
      if d[1] == LISTED then
        call('ZREM', KEYS[d[4]], d[2])
      end
    end
  end
end
for i = 1, #increments do
  answer[#answer + 1] = results[i]
end
for i = 1, #records do
  call(publish, channel, records[i])
  answer[#answer + 1] = counters_told[i]
end
return answer
