-- Removes the members of ended leases. Included after `nodes.lua`.
--
-- Returns { 0, members … } or { 1, nodes … }
local answer = { 0 }
local dead = {}
for i = 1, #nodes do
  local k = 1 + 2 * expected[nodes[i]]
  if redis.call('EXISTS', KEYS[k]) == 0 then
    dead[#dead + 1] = nodes[i]
    local members = redis.call('HKEYS', KEYS[k + 1])
    for j = 1, #members do
      answer[#answer + 1] = members[j]
    end
  end
end
local unswept = redis.call('SMEMBERS', KEYS[2])
for i = 1, #unswept do
  answer[#answer + 1] = unswept[i]
end
for i = 1, #dead do
  redis.call('DEL', KEYS[2 + 2 * expected[dead[i]]])
  redis.call('SREM', KEYS[1], dead[i])
end
if #unswept > 0 then
  redis.call('DEL', KEYS[2])
end
return answer
