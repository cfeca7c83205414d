-- Reads the clock and writes a key. Fails if the server takes no writes, other than for full memory.
--
-- KEYS  the key to write
-- ARGV  1 to try every command, else 0; the command that publishes, and a channel
--
-- Returns { milliseconds, 1 if memory is full, else 0, commands that the user may not run … }
local time = redis.call('TIME')
local is_full = 0
local function write(call)
  return call('SET', KEYS[1], time[1], 'PX', 60000)
end
local reply = write(redis.pcall)
if type(reply) == 'table' and reply.err then
  if not string.find(reply.err, 'OOM', 1, true) then
    return reply
  end
  -- After a deletion as its first write, a script may write although memory is full.
  is_full = 1
  redis.call('DEL', KEYS[1])
  write(redis.call)
end
local answer = { time[1] * 1000 + math.floor(time[2] / 1000), is_full }
local forbidden = ARGV[1] == '1' and forbidden_commands(KEYS[1], ARGV[2], ARGV[3]) or {}
for i = 1, #forbidden do
  answer[i + 2] = forbidden[i]
end
return answer
