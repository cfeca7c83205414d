-- What `members` and `sweep` begin with: the nodes, as expected or else answered.
--
-- KEYS  the nodes; members of ended leases that were not told yet; then lease and members of each expected node
-- ARGV  how many nodes are expected, these, then what the script itself takes
local expected, count, nodes = {}, tonumber(ARGV[1]), redis.call('SMEMBERS', KEYS[1])
for i = 1, count do
  expected[ARGV[1 + i]] = i
end
for i = 1, #nodes do
  if not expected[nodes[i]] then
    return { 1, unpack(nodes) }
  end
end
