-- The locks of a cart and the queue for them.
--
-- A lock that a sidecar holds stands in two places. The lock keys, one for each part, are what other programs see:
-- their values are those of bsm/redislock, a token of 22 characters and then text about the holder. The registry, one
-- JSON string, has the same locks by holder, and the queue; it exists only while somebody holds or waits, so that an
-- undisturbed commit sees at one MGET that there is nothing to think about. A hold counts while it has not ended and
-- each of its keys still starts with its token; a lock key that no hold explains is the lock of another program.
--
-- The rules are those of State in state.go of package storage, whose names are used.

local PUSHED = 16384 -- a cart whose documents are longer does not travel with a wake-up

-- open_cart is a cart of which nothing has been read yet; i counts from 0.
local function open_cart(i)
  local hash = KEYS[4 * i + 1]
  return {
    hash = hash, index = KEYS[4 * i + 2], queue = KEYS[4 * i + 3], lock = KEYS[4 * i + 4],
    fence = NAMESPACE .. 'fence.' .. string.sub(hash, #NAMESPACE + 1),
    woken = {}, leases = {},
  }
end

local function overlap(a, b)
  for _, p in ipairs(a) do
    for _, q in ipairs(b) do
      if p == q or p == '*' or q == '*' then
        return true
      end
    end
  end
  return false
end

local function covers(held, want)
  local has = {}
  for _, p in ipairs(held) do
    has[p] = true
  end
  for _, p in ipairs(want) do
    if not has[p] and not has['*'] then
      return false
    end
  end
  return true
end

local function held_by_other(c, parts, token)
  for _, h in ipairs(c.held) do
    if h.token ~= token and overlap(h.parts, parts) then
      return true
    end
  end
  return false
end

-- reject removes what refuse says yes to, in place.
local function reject(list, refuse)
  local kept = 0
  for i = 1, #list do
    local v = list[i]
    list[i] = nil
    if not refuse(v) then
      kept = kept + 1
      list[kept] = v
    end
  end
end

-- hold and drop note the parts whose keys are not as they should be any more, for save. What belongs to another program
-- is left alone, also where it was taken beneath a lock of the whole cart, of which that program knows nothing.
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

-- gather_lease makes h all that its token holds, as one lease. One that is short for now does not cut that, and is
-- entered when it is confirmed: nobody knows of it yet. One of the whole cart has the keys of items and conditions too:
-- other programs know nothing of locks of the whole cart.
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
  h.duration = h.duration or duration -- a turn by the lease's token leaves that as it is
  if short then
    h.expires = ends
  else
    c.leases[h.token] = h.expires
  end
  c.ends = math.max(c.ends or 0, h.expires)
end

-- hold grants a claim. Where it comes from the queue, its waiter may have died since its last sign of life, and is
-- given a longer lease, or a client's, when it has claimed again.
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

-- promote grants, first come first served: a waiter passes those before it only where it shares no part with any of
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

-- renew gives what token holds of the parts their lease anew, where it holds them all, and leaves what else it holds as
-- it is, unless it is a lease, which ends as a whole.
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

-- acquire grants the claim or puts it in the queue, and says which; neither where its lease was lost.
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

-- outlook says when a queued claim should ask again: in how many milliseconds the first of those before it ends by
-- itself (-1: never), and whether only another program's lock stands in its way, of whose end nobody tells.
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

-- save writes locks and queue, where anything changed. Keys end one millisecond early, since Redis drops a key after
-- its time, and here what ends at an instant is over at it.
local function save(c)
  if not c.dirty then
    return
  end
  c.saved = true
  for p in pairs(c.touched) do
    local best
    for _, h in ipairs(c.held) do
      if not h.foreign and (not best or h.expires > best.expires) then
        for _, q in ipairs(h.parts) do
          if p == q then
            best = h
          end
        end
      end
    end
    if best then
      redis.call('SET', lock_key(c, p), best.token .. best.holder, 'PXAT', best.expires - 1)
    else
      redis.call('DEL', lock_key(c, p))
    end
  end
  local held, last = {}, 0
  for _, h in ipairs(c.held) do
    if not h.foreign then
      held[#held + 1] = h
      last = math.max(last, h.expires)
    end
  end
  for _, w in ipairs(c.waiting) do
    last = math.max(last, w.alive)
  end
  if last > 0 then
    -- It outlives its locks: a lock key without it would pass for another program's.
    redis.call('SET', c.queue, cjson.encode({held = held, waiting = c.waiting}), 'PXAT', last + 1000)
  elseif c.registry then
    redis.call('DEL', c.queue)
  end
  save_leases(c)
  outlive(c)
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

-- wake tells those who were granted a lock by what was saved, with the cart where it is small, so that they need not
-- read it; those who must claim again get it with that. It is only a hint: they ask again by themselves.
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
