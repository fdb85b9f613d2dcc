-- List the instances of an identifier that exist. The index may name carts that have expired; they are removed from it
-- here. If the server evicts keys, the index may also lack carts; those that were found without it are added here.
--
-- KEYS: index of instances. ARGV: what stands before an instance in a cart's key, and then instances that were found.
-- Reply, packed: a list of the instances that are there.

local alive, listed = {}, {}
for _, instance in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. instance) == 1 then
    alive[#alive + 1] = instance
    listed[instance] = true
  else
    redis.call('SREM', KEYS[1], instance)
  end
end
local kept = #alive
local ends -- of the index, for those that it lacked; 0 for never
for i = 2, #ARGV do
  local instance = ARGV[i]
  local hash = ARGV[1] .. instance
  if not listed[instance] and redis.call('EXISTS', hash) == 1 then
    alive[#alive + 1] = instance
    listed[instance] = true
    redis.pcall('SADD', KEYS[1], instance) -- a full server refuses this; the carts are returned all the same
    local indexed = redis.pcall('HGET', hash, 'indexed')
    indexed = type(indexed) == 'string' and tonumber(indexed) or 0
    ends = (ends == 0 or indexed == 0) and 0 or math.max(ends or 0, indexed)
  end
end
local left = ends and redis.call('PTTL', KEYS[1])
if ends == 0 and left >= 0 then
  redis.call('PERSIST', KEYS[1])
elseif ends and ends > 0 and left ~= -2 then
  local time = redis.call('TIME')
  if left == -1 and kept == 0 or left >= 0 and time[1] * 1000 + left < ends then
    redis.call('PEXPIREAT', KEYS[1], ends)
  end
end
return cmsgpack.pack(alive)
