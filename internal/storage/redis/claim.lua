-- Claim a lock, or renew it, or renew a place in the queue.
--
-- KEYS: cart, index of instances, queue, lock of the whole cart. ARGV: token, holder, lease (ms), channel to wake, life
-- of a place in the queue (ms), number of parts, parts, 'f' for a lease. Reply, packed: granted, milliseconds until it
-- is worth asking again (-1: none known, -2: never, the lease was lost), whether to poll, and where granted the cart;
-- for a lease also fence and end (ms).

local claim = read_claim()
claim.fence = arg() == 'f' or nil
local c = open_cart(0)
look(c, claim.parts)
if claim.fence then
  last_fence(c)
end
local granted, queued = acquire(c, claim)
save(c)
wake(c)
if granted then
  local h = leased(c, claim.token)
  if h then
    return cmsgpack.pack({true, -1, false, snapshot(c), h.fence, h.expires})
  end
  return cmsgpack.pack({true, -1, false, snapshot(c)})
end
if not queued then
  return cmsgpack.pack({false, -2, false, false})
end
local first, poll = outlook(c, claim)
return cmsgpack.pack({false, first, poll, false})
