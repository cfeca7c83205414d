-- Reads a piece of the log.
--
-- KEYS  the head; the log
-- ARGV  the plan: seq, at, limit
--
-- Returns { head, 0 continuous | 1 trimmed | 2 diverged, entries … }
local CONTINUOUS, TRIMMED, DIVERGED = 0, 1, 2
local after_seq, after_at, limit = take('>I8I8I6', plan)
local answer = { head or '', CONTINUOUS }
if after_seq < floor_seq then
  answer[2] = TRIMMED
  return answer
end
local entries
if after_seq == floor_seq then
  if after_at ~= floor_at then
    answer[2] = DIVERGED
    return answer
  end
  entries = head and limit > 0 and call('LRANGE', KEYS[2], 0, limit - 1) or {}
else
  local index = after_seq - floor_seq - 1
  entries = after_seq <= seq and call('LRANGE', KEYS[2], index, index + limit) or {}
  local entry = table.remove(entries, 1)
  if not entry or take('>I6', entry) ~= after_at then
    answer[2] = DIVERGED
    return answer
  end
end
for i = 1, #entries do
  answer[i + 2] = entries[i]
end
return answer
