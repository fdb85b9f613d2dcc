-- Give back what a token holds, and its place in the queue.
--
-- KEYS: cart, index of instances, queue, lock of the whole cart. ARGV: token.

local token = arg()
local c = open_cart(0)
look(c, {})
local known = false
for _, list in ipairs({c.held, c.waiting}) do
  for _, x in ipairs(list) do
    known = known or x.token == token
  end
end
if not known then
  -- It may be a lock of another program, whose part is not known.
  c = open_cart(0)
  look(c, {'*'})
end
release(c, token)
save(c)
wake(c)
return ''
