-- How long a cart lives, and the index of instances with it. A cart does not expire before the last lease on it has
-- ended, as outlive in lease.go of package storage says. Turns and the locks of other programs are not leases.

-- index enters the cart in the index of instances, which must live as long as any cart in it: until last, or for ever
-- if that is 0. It runs after the cart is written, so an error here must not end the script between two carts.
local function index(c, instance, last)
  local left = redis.call('PTTL', c.index)
  redis.pcall('SADD', c.index, instance)
  if last == 0 then
    if left >= 0 then
      redis.call('PERSIST', c.index)
    end
  elseif left == -2 or (left >= 0 and now + left < last) then
    redis.call('PEXPIREAT', c.index, last)
  end
end

-- lease_end is when the last lease on the cart ends; 0 where there is none.
local function lease_end(c)
  local last = 0
  for _, h in ipairs(c.held) do
    if h.fence then
      last = math.max(last, h.expires)
    end
  end
  return last
end

-- outlive lets the cart live until the leases that were granted or renewed have ended. c.ends is the last of their
-- ends; it is nil if there was none, and then this costs nothing. Afterwards c.expires is when the cart expires.
local function outlive(c)
  if not c.ends then
    return
  end
  local got = redis.call('HMGET', c.hash, 'id', 'expires', 'indexed')
  local expires, indexed = tonumber(got[2]), tonumber(got[3])
  if not got[1] or not expires or expires == 0 or now >= expires or expires >= c.ends then
    return
  end
  c.expires = c.ends
  redis.call('HSET', c.hash, 'expires', c.ends)
  redis.call('PEXPIREAT', c.hash, c.ends - 1) -- see save.lua
  if not indexed or (indexed ~= 0 and indexed < c.ends) then
    local last = 2 * c.ends - now -- as in write: the next renewals need not touch the index
    redis.call('HSET', c.hash, 'indexed', last)
    index(c, string.match(c.hash, '[^.]*$'), last)
  end
end
