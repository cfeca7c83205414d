-- Checks every command that the scripts use. Redis checks a user's permissions command by command, so a script whose user
-- lacks one would stop after its first writes. Other errors do not matter here.
--
-- Returns the names of the commands that the user may not run on the key and the channel.
local function forbidden_commands(key, publish, channel)
  local forbidden = {}
  local function try(command, ...)
    if redis.acl_check_cmd then
      if not redis.acl_check_cmd(command, ...) then
        forbidden[#forbidden + 1] = command
      end
      return
    end
    -- Redis 6 has no function that asks.
    local reply = redis.pcall(command, ...)
    local err = type(reply) == 'table' and reply.err
    -- "The user executing the script can't run this command", "... can't access at least one of the keys ..."
    if err and (string.find(err, 'NOPERM', 1, true) or string.find(err, 'user executing the script can', 1, true)) then
      forbidden[#forbidden + 1] = command
    end
  end
  try('DEL', key)
  try('EXISTS', key)
  try('HSET', key, 'a', '1')
  try('HGET', key, 'a')
  try('HMGET', key, 'a')
  try('HGETALL', key)
  try('HKEYS', key)
  try('HLEN', key)
  try('HSCAN', key, 0)
  try('HRANDFIELD', key, 1)
  try('HDEL', key, 'a')
  try('ZADD', key, 0, 'a')
  try('ZRANGEBYLEX', key, '-', '+')
  try('ZRANGEBYSCORE', key, '-inf', '+inf')
  try('ZREM', key, 'a')
  try('RPUSH', key, 'a', 'b')
  try('LRANGE', key, 0, -1)
  try('LPOP', key)
  try('SADD', key, 'a')
  try('SMEMBERS', key)
  try('SREM', key, 'a')
  try('SET', key, '1', 'PX', 60000)
  try('GET', key)
  try('PEXPIREAT', key, '9999999999999')
  try('SET', key, '1', 'PX', 60000)
  try(publish, channel, '')
  return forbidden
end
