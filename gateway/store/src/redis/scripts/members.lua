-- Counts the sessions of members. Included after `nodes.lua`.
--
-- ARGV  the members
--
-- Returns { 0, sessions … } or { 1, nodes … }
local sums = { 0 }
for m = 2 + count, #ARGV do
  sums[m - count] = 0
end
for i = 1, #nodes do
  local k = 1 + 2 * expected[nodes[i]]
  if redis.call('EXISTS', KEYS[k]) == 1 then
    for m = 2 + count, #ARGV do
      sums[m - count] = sums[m - count] + (redis.call('HGET', KEYS[k + 1], ARGV[m]) or 0)
    end
  end
end
return sums
