-- A commit: reads, checks, then writes. `commit.rs` packs the plan and decodes the reply; `keys.rs` describes the layout.
--
-- KEYS  the head; the log, if the commit appends, trims or sets an expiry; then keys that documents refer to by index
-- ARGV  the plan: channel, publish command, maximum events, maximum bytes, clock offset, expiry in ms, index of the key to delete first or 0;
--       numbers of documents, requirements, increments, writes and appends; then these, as read below. Indexes start at 1, 0 means none.
--
-- Returns { 0, at, at of the previous event, first seq, number, six integers per write, one per increment, the counters of each record }
--         { 1, failed requirements, failed increments }     conflict (indexes from 0)
--         { 2, number, number of each document or 0 }       nothing written: the hash of a numbered document is not declared
--         { 3, keys }                                       nothing written: the expiry changes and these keys are not declared
local PUT, TOUCH, DELETE = 0, 1, 2
local EDITED, DELETED = 1, 2
local channel, publish, keep_events, keep_bytes, offset, expire, room
local documents_count, requires_count, increments_count, writes_count, appends_count
channel, publish, keep_events, keep_bytes, offset, expire, room, documents_count, requires_count, increments_count, writes_count, appends_count, rest =
  take('>I2c0I2c0I6I6i8I6I2I2I2I2I2I2', plan, rest)
local documents, targets = {}, {}

-- Compares by bytes; `<` uses the server's locale.
local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = a:byte(i), b:byte(i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- Packs counters as a MessagePack map sorted by name; an empty string for no counters (cmsgpack packs an empty table as an array).
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
  -- An array and a map differ only in the header.
  local body = cmsgpack.pack(flat):sub(n < 8 and 2 or 4)
  return (n < 16 and string.char(0x80 + n) or pack('>BI2', 0xde, n)) .. body
end

-- The reply if the hash of a numbered document is not declared.
local function stale()
  local answer = { 2, number }
  for i = 1, documents_count do
    answer[i + 2] = documents[i].number
  end
  return answer
end

-- Read.

for i = 1, documents_count do
  documents[i] = next_document()
end

-- Check. If a check needs a document whose hash is not declared, the next attempt decides.

local failed, over, unsure = {}, {}, false
for i = 1, requires_count do
  local target, is, value
  target, is, value, rest = take('>I2BI6', plan, rest)
  local holds = meets(documents[target], is, value)
  if holds == nil then
    unsure = true
  elseif not holds then
    failed[#failed + 1] = i - 1
  end
end

local partition_counts
local results = {}
for i = 1, increments_count do
  local target, name, by, max, max_names
  target, name, by, max, max_names, rest = take('>I2I2c0i8i8i8', plan, rest)
  local d, counts = documents[target], nil
  if not d then
    partition_counts = partition_counts or (counters == '' and {} or cmsgpack.unpack(counters))
    counts = partition_counts
  elseif not d.exists then
    over[#over + 1] = i - 1
  elseif not d.raw then
    unsure = true
  else
    local packed = open(d).packed
    counts = d.counts or (packed == '' and {} or cmsgpack.unpack(packed))
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
        d.counts, d.dirty = counts, true
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

-- Prepare. Nothing is written yet.

local time = call('TIME')
local clock = time[1] * 1000 + floor(time[2] / 1000)
now = math.max(clock + offset, now)
-- All keys of an expiring partition get the same expiry, so its head lists them. Such partitions are tiny.
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
for i = 1, writes_count do
  local what, target, event, mark, value
  what, target, event, mark, value, rest = take('>BI2I2BI4c0', plan, rest)
  local d = documents[target]
  targets[i] = d
  d.removed = what == DELETE and d.exists
  if d.removed then
    retired = math.max(retired, (take('>I6', d.raw)))
  end
  if what <= TOUCH and d.exists and not d.raw then
    return stale()
  end
  local is
  if what == PUT then
    if d.exists then
      is = open(d)
    else
      is = { version = retired, number = 0, seq = 0, created = now, edited = 0, deleted = 0, packed = '', value = '' }
      d.is = is
      if d.order == NUMBERED then
        next_number = next_number + 1
        is.number = next_number
        if d.index == 0 or d.bucket ~= floor(next_number / BUCKET) then
          return stale()
        end
      end
    end
    is.version = is.version + 1
    is.value = value
    if mark == EDITED then
      is.edited = now
    elseif mark == DELETED then
      is.deleted, is.packed, d.counts = now, '', false
    end
  elseif what == TOUCH and d.exists then
    is = open(d)
  end
  if is then
    d.dirty = true
    if event > 0 and is.seq ~= first + event then
      is.seq = first + event
      d.changed = d.order == NUMBERED
    end
  end
end
for i = 1, documents_count do
  local d = documents[i]
  if d.dirty then
    local is, key = d.is, d.order == NUMBERED and d.key or ''
    if d.counts then
      is.packed = packed_counts(d.counts)
    end
    local integers = pack('>I6I6I6I6I6I6I2I4', is.version, is.number, is.seq, is.created, is.edited, is.deleted, #key, #is.packed)
    d.after = integers .. key .. is.packed .. is.value
  end
end
if partition_counts then
  counters = packed_counts(partition_counts)
end

local records, entries, record_counters = {}, {}, {}
for i = 1, appends_count do
  local kind, reference, control, subject, written, body, counted
  kind, reference, control, subject, written, body, counted, rest = take('>BI4c0BI2c0I2I4c0I2', plan, rest)
  seq = seq + 1
  local mask, stamps, counts = 0, '', ''
  record_counters[i] = ''
  if written > 0 then
    local d = targets[written].is
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
      mask, counts, record_counters[i] = mask + 64, pack('>I4', #d.packed) .. d.packed, d.packed
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

-- Redis does not undo the writes of a script that it stops, and stops it at a command that its user may not run. So all commands
-- are checked before the first write, where the server can (Redis 7). Nodes check the others every second.

local may = redis.acl_check_cmd
if may then
  local key = KEYS[1]
  local allowed = may('SET', key, '') and may(publish, channel, '') and may('HSET', key, '', '') and may('ZADD', key, 0, '')
    and (appends_count == 0 or may('RPUSH', key, ''))
    and (keep_events == 0 and keep_bytes == 0 or may('LPOP', key))
    and (room == 0 or may('DEL', key))
    and (expires == 0 or may('PEXPIREAT', key, 0))
  for i = 1, documents_count do
    if documents[i].removed then
      allowed = allowed and may('HDEL', key, '') and may('ZREM', key, '')
      break
    end
  end
  if not allowed then
    return redis.error_reply("NOPERM the user executing the script can't run one of its commands")
  end
end

-- Write. Removals come last: they may delete a key, and a script must not use a missing key of a migrating slot.

-- A server with full memory checks only the first write of a script. A deletion is allowed.
if room > 0 then
  call('DEL', KEYS[room])
end
local kept = {}
for i = 1, documents_count do
  local d = documents[i]
  if d.after then
    if d.order == NUMBERED then
      local n = d.is.number
      if not d.exists then
        call('HSET', KEYS[d.hash], d.key, n)
        kept[d.hash] = true
      end
      call('HSET', KEYS[d.index], n, d.after)
      kept[d.index] = true
      if d.changed then
        call('ZADD', KEYS[d.changes], d.is.seq, n)
        kept[d.changes] = true
      end
    else
      call('HSET', KEYS[d.hash], d.key, d.after)
      kept[d.hash] = true
      if d.order == LISTED and not d.exists then
        call('ZADD', KEYS[d.index], 0, d.key)
        kept[d.index] = true
      end
    end
  end
end
number = next_number
if appends_count > 0 then
  -- Lua limits the number of unpacked values.
  for i = 1, appends_count, 1000 do
    call('RPUSH', KEYS[2], unpack(entries, i, math.min(i + 999, appends_count)))
  end
  kept[2] = true
end
-- The log is declared only if there is a limit. Trims at most a thousand events, so that a lowered limit does not block the server;
-- later commits continue.
local trimmed = false
for _ = 1, (keep_events > 0 or keep_bytes > 0) and 1000 or 0 do
  local events = seq - floor_seq
  if events <= 1 or ((keep_events == 0 or events <= keep_events) and (keep_bytes == 0 or log_bytes <= keep_bytes)) then
    break
  end
  local entry = call('LPOP', KEYS[2])
  if not entry then
    break
  end
  floor_seq, floor_at = floor_seq + 1, (take('>I6', entry))
  log_bytes = log_bytes - 16 - (#entry - 7)
  kept[2], trimmed = true, true
end
if writes_count > 0 or increments_count > 0 or appends_count > 0 or expire > 0 or trimmed then
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
      if kept[i] or (expire > 0 and (i == 2 or keys_known[KEYS[i]])) then
        call('PEXPIREAT', KEYS[i], expires)
      end
    end
  end
  write_head()
end

local answer = { 0, now, at_before, appends_count > 0 and first + 1 or seq, number }
local n = 5
for i = 1, writes_count do
  local d = targets[i]
  local is = d.after and d.is
  if is then
    answer[n + 1], answer[n + 2], answer[n + 3] = is.version, is.number, is.seq
    answer[n + 4], answer[n + 5], answer[n + 6] = is.created, is.edited, is.deleted
  else
    answer[n + 1], answer[n + 2], answer[n + 3], answer[n + 4], answer[n + 5], answer[n + 6] = 0, 0, 0, 0, 0, 0
    if d.removed then
      call('HDEL', KEYS[d.hash], d.key)
      if d.order == LISTED then
        call('ZREM', KEYS[d.index], d.key)
      end
    end
  end
  n = n + 6
end
for i = 1, increments_count do
  n = n + 1
  answer[n] = results[i]
end
for i = 1, appends_count do
  call(publish, channel, records[i])
  n = n + 1
  answer[n] = record_counters[i]
end
return answer
