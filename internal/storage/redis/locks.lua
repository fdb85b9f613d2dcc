-- The locks of a cart and the queue for them.
--
-- A lock that a sidecar holds is in two places. Other programs see the lock keys, one for each part. Their values have
-- bsm/redislock's format: a token of 22 characters, then text about the holder. The registry, one JSON string, has the
-- same locks by holder, and the queue. It exists only while somebody holds or waits, so one MGET shows an ordinary
-- commit that there are no locks. A hold counts while it has not ended and each of its keys still begins with its
-- token. A lock key without a hold is the lock of another program.
--
-- The rules are those of State in state.go of package storage, whose names are used.

-- hold and drop note for save the parts whose keys must change. Locks of another program are left alone, even if they
-- were taken while a sidecar had the whole cart: other programs do not know of locks of the whole cart.
local function touch(c, parts, token)
  for _, p in ipairs(parts) do
    local v = c.values[p]
    if not v or string.sub(v, 1, TOKEN) == token then
      c.touched[p] = true
    end
  end
  c.dirty = true
end

local function drop(c, h)
  touch(c, h.parts, h.token)
end

-- gather_lease makes h one lease over all that its token holds. A grant that is not confirmed yet is short. It does not
-- shorten the rest of the lease, and is entered in the set when it is confirmed, since no client has its token yet. A
-- lease of the whole cart also has the keys of items and conditions, since other programs do not know of locks of the
-- whole cart.
local function gather_lease(c, h, short)
  local parts, has, fence, ends, duration = {}, {}, nil, h.expires, nil
  local function add(list)
    for _, p in ipairs(list) do
      if not has[p] then
        has[p] = true
        parts[#parts + 1] = p
      end
    end
  end
  reject(c.held, function(old)
    if old.token ~= h.token then
      return false
    end
    fence, duration = fence or old.fence, duration or old.duration
    ends = math.max(ends, old.expires or 0)
    add(old.parts)
    drop(c, old)
    return true
  end)
  add(h.parts)
  h.parts, h.fence = has['*'] and {'*', 'items', 'conditions'} or parts, fence or next_fence(c)
  h.duration = h.duration or duration -- a turn by the lease's token leaves the lease's duration as it is
  if short then
    h.expires = ends
  else
    c.leases[h.token] = h.expires
  end
  c.ends = math.max(c.ends or 0, h.expires)
end

-- hold grants a claim. The waiter of a claim from the queue may have died since its last sign of life. So it is given a
-- long lock, or a client's lease, only when it has claimed again.
local function hold(c, claim, queued)
  local short = queued and (claim.fence or claim.lease > claim.life)
  local h = {
    token = claim.token, holder = claim.holder, parts = claim.parts,
    expires = now + (short and math.min(claim.lease, claim.life) or claim.lease),
    duration = claim.fence and claim.lease or nil,
  }
  if claim.fence or leased(c, claim.token) then
    gather_lease(c, h, short)
  end
  c.held[#c.held + 1] = h
  touch(c, h.parts, h.token)
end

-- promote grants locks, first come first served. A waiter passes those before it only if it shares no part with any of
-- them.
local function promote(c)
  local ahead = {}
  reject(c.waiting, function(w)
    if held_by_other(c, w.parts, w.token) or overlap(ahead, w.parts) then
      for _, p in ipairs(w.parts) do
        ahead[#ahead + 1] = p
      end
      return false
    end
    hold(c, w, true)
    c.woken[#c.woken + 1] = w
    return true
  end)
end

-- look reads who holds the parts, given as lists, and who waits, and settles it: what has ended is dropped, and what is
-- free is granted to those who wait for it.
local function look(c, ...)
  local names, seen, all, from = {'*'}, {['*'] = true}, false, 1
  local function want(list)
    for _, p in ipairs(list) do
      if not seen[p] then
        seen[p] = true
        names[#names + 1] = p
      elseif p == '*' and not all then
        all = true
      end
    end
  end
  -- The whole cart is locked by a lock on any part, also on metadata keys.
  local function widen()
    want({'items', 'conditions'})
    for _, field in ipairs(redis.call('HKEYS', c.hash)) do
      if string.sub(field, 1, 9) == 'metadata.' then
        want({field})
      end
    end
  end
  local values = {}
  local function fetch(extra)
    local keys = {extra}
    for i = from, #names do
      keys[#keys + 1] = lock_key(c, names[i])
    end
    local got = gather('MGET', nil, keys)
    local skip = extra and 1 or 0
    for i = from, #names do
      values[names[i]] = got[i - from + 1 + skip]
    end
    from = #names + 1
    return got[1]
  end

  for i = 1, 4 do
    local parts = select(i, ...)
    if parts then
      want(parts)
    end
  end
  if all then
    widen()
  end
  c.values, c.touched, c.held, c.waiting = values, {}, {}, {}
  local registry = fetch(c.queue)
  if registry then
    c.registry = true
    local r = read_registry(registry)
    if not r then
      error('CORRUPT ' .. c.queue .. ' holds something that is no queue', 0)
    end
    c.held, c.waiting = r.held, r.waiting
    local before = all
    for _, h in ipairs(c.held) do
      want(h.parts)
    end
    for _, w in ipairs(c.waiting) do
      want(w.parts)
      if w.fence then
        last_fence(c)
      end
    end
    if all and not before then
      widen()
    end
    if from <= #names then
      fetch(nil)
    end
  end

  local explained, ended = {}, {}
  reject(c.held, function(h)
    local whole = now < h.expires
    for _, p in ipairs(h.parts) do
      local v = values[p]
      explained[p] = h.token
      whole = whole and v and string.sub(v, 1, TOKEN) == h.token
    end
    if not whole then
      ended[#ended + 1] = h
    end
    return not whole
  end)
  for _, p in ipairs(names) do
    local v = values[p]
    if v then
      local token = string.sub(v, 1, TOKEN)
      if token ~= explained[p] then
        c.held[#c.held + 1] = {token = token, parts = {p}, foreign = true}
      end
    end
  end
  for _, h in ipairs(ended) do
    drop(c, h)
  end
  reject(c.waiting, function(w)
    local dead = now >= w.alive
    c.dirty = c.dirty or dead
    return dead
  end)
  promote(c)
end

-- renew lets what token holds of the parts live for the whole duration again, if token holds all of them. Other parts
-- that it holds keep their end, unless they are a lease, which has one end.
local function renew(c, claim)
  local has = {}
  for _, h in ipairs(c.held) do
    if h.token == claim.token then
      for _, p in ipairs(h.parts) do
        has[#has + 1] = p
      end
    end
  end
  if #has == 0 or not covers(has, claim.parts) then
    return false
  end
  if claim.fence or leased(c, claim.token) then
    hold(c, claim)
    return true
  end
  reject(c.held, function(h)
    if h.token ~= claim.token then
      return false
    end
    if covers(claim.parts, h.parts) then
      drop(c, h)
      return true
    end
    reject(h.parts, function(p)
      for _, q in ipairs(claim.parts) do
        if p == q then
          return true
        end
      end
    end)
  end)
  hold(c, claim)
  return true
end

-- acquire grants the claim or puts it in the queue, and says which. It does neither if the claim's lease was lost.
local function acquire(c, claim)
  if renew(c, claim) then
    return true, false
  end
  if claim.fence and not leased(c, claim.token) and lost(c, claim.token) then
    return false, false
  end
  claim.alive = now + claim.life
  local blocked = held_by_other(c, claim.parts, claim.token)
  for _, w in ipairs(c.waiting) do
    if w.token == claim.token then
      w.alive, w.wake = claim.alive, claim.wake
      c.dirty = true
      return false, true
    end
    blocked = blocked or overlap(w.parts, claim.parts)
  end
  if blocked then
    c.waiting[#c.waiting + 1] = claim
    c.dirty = true
    return false, true
  end
  hold(c, claim)
  return true, false
end

-- release gives back what token holds and its place in the queue.
local function release(c, token)
  local function mine(x)
    return x.token == token
  end
  reject(c.held, function(h)
    if mine(h) then
      drop(c, h)
      if h.fence then
        c.leases[token] = false
      end
      return true
    end
  end)
  reject(c.waiting, function(w)
    if mine(w) then
      c.dirty = true
      return true
    end
  end)
  promote(c)
end

