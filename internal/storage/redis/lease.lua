-- Look at a lease, renew it or give it back. The rules are those of State in lease.go of package
-- storage.
--
-- KEYS: cart, index of instances, queue, lock of the whole cart.
-- ARGV: what to do ('look', 'renew', 'release'), token, lease (ms).
-- Reply, packed: 'held', 'lost' or 'unknown'; where held, parts, holder, fence and end (ms).

local doing, token, lease = arg(), arg(), tonumber(arg())
local c = open_cart(0)
look(c)
local h = leased(c, token)
local reply
if not h then
  reply = {lost(c, token) and 'lost' or 'unknown'}
elseif doing == 'release' then
  release(c, token)
elseif doing == 'renew' then
  h.expires = now + lease
  c.leases[token] = h.expires
  touch(c, h.parts, token)
end
save(c)
wake(c)
return cmsgpack.pack(reply or {'held', h.parts[1] == '*' and {'*'} or h.parts, h.holder, h.fence, h.expires})
