-- What every script of a partition begins with: the head, one string. It holds ten integers, the
-- partition's counters as a MessagePack map, and, if the partition expires, the names of its keys as a MessagePack array.
-- Without it the partition is not there, whatever stands in its other keys: it is about to be, with the last piece of a load.
local call, pack, take, floor = redis.call, struct.pack, struct.unpack, math.floor
-- The plan is packed like a struct and read from the front: unpacking MessagePack into tables took a third of a whole commit.
local plan, rest = ARGV[1], 1

-- How many numbers stand in one hash. A layout constant: keys.rs has the same.
local BUCKET = 1000

local seq, at, number, floor_seq, floor_at, log_bytes, purged, retired, now, expires = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
-- `purged`: up to which number the numbered table was purged. `retired`: the highest version of all documents that were removed;
-- new ones begin above it.
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
