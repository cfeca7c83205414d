-- The first part of `members` and `sweep`: reads the nodes, and returns { 1, nodes … } if the keys of one are not declared.
--
-- KEYS  the nodes; members of ended leases that no sweep has returned; then lease and members of each expected node
-- ARGV  number of expected nodes, the nodes, then the arguments of the script itself
local expected, count, nodes = {}, tonumber(ARGV[1]), redis.call('SMEMBERS', KEYS[1])
for i = 1, count do
  expected[ARGV[1 + i]] = i
end
for i = 1, #nodes do
  if not expected[nodes[i]] then
    return { 1, unpack(nodes) }
  end
end
