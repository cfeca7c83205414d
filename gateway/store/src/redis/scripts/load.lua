-- Loads a piece of a partition. Included after `head.lua`; `transfer.rs` packs the plan.
--
-- KEYS  the head; then keys that the plan refers to by index
-- ARGV  the plan: number of steps; the steps, as read below; the head in the last piece, else an empty string; the expiry or 0
--
-- Returns 0, or 1 if the partition exists already (nothing written)
local SET_FIELD, ADD_MEMBER, APPEND = 0, 1, 2
if head then
  return 1
end
local count
count, rest = take('>I4', plan, rest)
for _ = 1, count do
  local what, key, name, value
  what, key, name, value, rest = take('>BI2I2c0I4c0', plan, rest)
  if what == SET_FIELD then
    call('HSET', KEYS[key], name, value)
  elseif what == ADD_MEMBER then
    call('ZADD', KEYS[key], name, value)
  elseif what == APPEND then
    call('RPUSH', KEYS[key], value)
  end
end
local last, expiry = take('>I4c0I6', plan, rest)
if expiry > 0 then
  for i = 2, #KEYS do
    call('PEXPIREAT', KEYS[i], expiry)
  end
  call('SET', KEYS[1], last, 'PXAT', expiry)
elseif #last > 0 then
  call('SET', KEYS[1], last)
end
return 0
