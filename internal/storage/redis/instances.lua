-- List the instances of an identifier that exist. The index may name carts that have expired:
-- it forgets them here.
--
-- KEYS: index of instances. ARGV: what stands before an instance in a cart's key.

local alive = {}
for _, instance in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[1] .. instance) == 1 then
    alive[#alive + 1] = instance
  else
    redis.call('SREM', KEYS[1], instance)
  end
end
return cmsgpack.pack(alive)
