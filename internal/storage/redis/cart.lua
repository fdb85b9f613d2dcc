-- A cart, as scripts pass it on.

-- open_cart is a cart of which nothing has been read yet; i counts from 0.
local function open_cart(i)
  local hash = KEYS[4 * i + 1]
  return {
    hash = hash, index = KEYS[4 * i + 2], queue = KEYS[4 * i + 3], lock = KEYS[4 * i + 4],
    fence = NAMESPACE .. 'fence.' .. string.sub(hash, #NAMESPACE + 1),
    woken = {}, leases = {},
  }
end

-- snapshot is the cart as a list of fields and values, empty where there is none.
local function snapshot(c)
  local flat = redis.call('HGETALL', c.hash)
  for i = 1, #flat, 2 do
    if flat[i] == 'expires' then
      local ends = tonumber(flat[i + 1])
      if ends and ends ~= 0 and now >= ends then
        return {}
      end
    end
  end
  return flat
end

