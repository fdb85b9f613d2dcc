-- Look at a lease, renew it or give it back. The rules are those of State in lease.go of package storage.
--
-- KEYS: cart, index of instances, queue, lock of the whole cart. ARGV: what to do ('look', 'renew', 'release'), token,
-- lease (ms; 0 for the duration that it has). Reply, packed: 'held', 'lost' or 'unknown'; where held, parts, holder,
-- fence, end (ms) and duration (ms). The duration is 0 if an older release wrote the lease, which did not store it; a
-- renewal by 0 then changes nothing.

local doing, token, lease = arg(), arg(), tonumber(arg())
local c = open_cart(0)
look(c)
local h = leased(c, token)
local reply
if not h then
  reply = {lost(c, token) and 'lost' or 'unknown'}
elseif doing == 'release' then
  release(c, token)
elseif doing == 'renew' and (lease > 0 or h.duration) then
  if lease > 0 then
    h.duration = lease
  end
  h.expires = now + h.duration
  c.leases[token] = h.expires
  c.ends = math.max(c.ends or 0, h.expires)
  touch(c, h.parts, token)
end
save(c)
wake(c)
return cmsgpack.pack(reply or {'held', h.parts[1] == '*' and {'*'} or h.parts, h.holder, h.fence, h.expires, h.duration or 0})
