-- Prove that every command of the scripts may be used on every kind of key, and works. It uses keys of its own and
-- deletes them at the end, with what earlier scripts of the probe left there.
--
-- KEYS: cart, index of instances, queue, lock of the whole cart, fence, locks of two parts. ARGV: channel. Reply: why
-- nobody can be woken, '' if all can. An error names the command, and the key by its kind.

local hash, index, queue, lock, fence, part, other = unpack(KEYS)
local KINDS = {[hash] = 'a cart', [index] = 'an index', [queue] = 'a queue', [lock] = 'a lock', [fence] = 'a fence', [part] = 'a lock', [other] = 'a lock'}
local END = 9999999999999 -- in the year 2286
-- The first command must be one that a full server refuses, since Redis lets a script that has written go on.
local calls = {
  {'HSET', hash, 'f', '1'}, {'SADD', index, 'i'}, {'SET', queue, '{}'}, {'SET', lock, 't'}, {'SET', part, 't'}, {'ZADD', fence, 1, 't'},
  {'TIME'}, {'EXISTS', hash}, {'HMGET', hash, 'f'}, {'HGETALL', hash}, {'HKEYS', hash}, {'HLEN', hash}, {'HSTRLEN', hash, 'f'}, {'HGET', hash, 'f'},
  {'HDEL', hash, 'f'}, {'PTTL', hash}, {'PERSIST', hash},
  {'SMEMBERS', index}, {'SISMEMBER', index, 'i'}, {'SREM', index, 'j'}, {'PTTL', index}, {'PERSIST', index},
  {'MGET', queue, lock, part}, {'SETRANGE', queue, 0, ''},
  {'ZSCORE', fence, 't'}, {'ZCOUNT', fence, 0, 0}, {'ZRANK', fence, 't'}, {'ZREM', fence, 'u'},
  {'ZREMRANGEBYSCORE', fence, 0, 0}, {'ZPOPMIN', fence, 1}, {'PTTL', fence},
}
for _, key in ipairs(KEYS) do
  calls[#calls + 1] = {'PEXPIREAT', key, END}
  calls[#calls + 1] = {'DEL', key}
end
for _, call in ipairs(calls) do
  local r = redis.pcall(unpack(call))
  if type(r) == 'table' and r.err then
    return redis.error_reply(r.err .. ' (' .. call[1] .. (call[2] and ' on ' .. KINDS[call[2]] or '') .. ')')
  end
end
local r = redis.pcall('PUBLISH', ARGV[1], '')
return type(r) == 'table' and r.err or ''
