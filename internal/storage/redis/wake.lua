-- What waiters are told: those that were granted a lock, and those that go on waiting.

local PUSHED = 16384 -- a cart whose documents are longer does not travel with a wake-up

-- outlook says when a queued claim should ask again. It returns in how many milliseconds the first of those before it
-- ends by itself (-1: never), and whether only another program's lock stands in its way: no wake-up comes at the end of
-- such a lock.
local function outlook(c, claim)
  local first, foreign, ahead = -1, false, false
  local function ends(when)
    local left = math.max(when - now, 0)
    if first < 0 or left < first then
      first = left
    end
  end
  for _, w in ipairs(c.waiting) do
    if w.token == claim.token then
      break
    end
    if overlap(w.parts, claim.parts) then
      ahead = true
      ends(w.alive)
    end
  end
  for _, h in ipairs(c.held) do
    if h.token ~= claim.token and overlap(h.parts, claim.parts) then
      if h.foreign then
        foreign = true
      else
        ends(h.expires)
      end
    end
  end
  return first, foreign and not ahead
end

-- wake tells the waiters whose locks save has granted. A small cart is sent along, so that they need not read it; those
-- who must claim again get the cart then. The message may get lost, since they also ask by themselves.
local function wake(c)
  if not c.saved or #c.woken == 0 then
    return
  end
  local small
  local function small_cart()
    if small == nil then
      small = redis.call('HSTRLEN', c.hash, 'items') + redis.call('HSTRLEN', c.hash, 'conditions') <= PUSHED
        and redis.call('HLEN', c.hash) <= 200 and snapshot(c)
    end
    return small
  end
  for _, w in ipairs(c.woken) do
    local message = cmsgpack.pack({w.token, not w.fence and w.lease <= w.life and small_cart()})
    if #message > 2 * PUSHED then
      message = cmsgpack.pack({w.token, false})
    end
    redis.pcall('PUBLISH', w.wake, message)
  end
end

