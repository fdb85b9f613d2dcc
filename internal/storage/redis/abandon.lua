-- Give back what a token holds, and its place in the queue.
--
-- KEYS: cart, index of instances, queue, lock of the whole cart. ARGV: token. Reply: nothing.

local token = arg()
local c = open_cart(0)
look(c, {'*'}) -- any part, since the token may be that of another program's lock
release(c, token)
save(c)
wake(c)
return ''
