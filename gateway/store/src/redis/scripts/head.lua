-- The first part of every script of a partition: reads the head. The head is a string of ten integers, the partition's
-- counters as a MessagePack map, and, if the partition expires, the names of its keys as a MessagePack array.
-- A partition without a head does not exist, even if it has other keys: it is partly loaded.
local call, pack, take, floor = redis.call, struct.pack, struct.unpack, math.floor
-- The plan is a packed struct, read from the front. (MessagePack tables took a third of the time of a commit.)
local plan, rest = ARGV[1], 1

-- Numbers per hash. Part of the stored layout; `keys.rs` has the same constant.
local BUCKET = 1000

local seq, at, number, floor_seq, floor_at, log_bytes, purged, retired, now, expires = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
-- `purged`: the number up to which the numbered table was purged. `retired`: the highest version of all removed documents;
-- new documents start above it.
local counters, expiring = '', ''
local head = call('GET', KEYS[1])
if head then
  local length
  seq, at, number, floor_seq, floor_at, log_bytes, purged, retired, now, expires, length = take('>I6I6I6I6I6I6I6I6I6I6I4', head)
  counters, expiring = head:sub(65, 64 + length), head:sub(65 + length)
end

local function write_head()
  local integers = pack('>I6I6I6I6I6I6I6I6I6I6I4',
    seq, at, number, floor_seq, floor_at, log_bytes, purged, retired, now, expires, #counters)
  local packed = integers .. counters .. expiring
  if expires > 0 then
    call('SET', KEYS[1], packed, 'PXAT', expires)
  else
    call('SET', KEYS[1], packed)
  end
end
