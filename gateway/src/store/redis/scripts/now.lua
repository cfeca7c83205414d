-- The clock, and a write that proves that writes are taken.
local time = redis.call('TIME')
redis.call('SET', KEYS[1], time[1], 'PX', 60000)
return time[1] * 1000 + math.floor(time[2] / 1000)
